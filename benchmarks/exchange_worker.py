"""What one worker of benchmarks/exchange.py does: measure one cell."""

import contextlib
import dataclasses
import math
import os
import pathlib
import socket
import statistics
import threading
import time
import types
import zlib

import numpy as np
import payloads
import psutil
import tensorflow as tf

import custom_ops
import tf_terngrad as tg
from tf_terngrad import collectives

_EXCHANGES = ("allreduce", "allgather", "alltoall", "auto")
# As the paper: the two variables of the last layer are exempt.
_FLOAT_LAST_LAYER = "ternary auto, last layer float"
_CLIP_FACTOR = 2.5
_SCALE = 0.01  # standard deviation of the gradients
_CHECKED = 2_000_000  # elements compared with NumPy's result
_SETTLE_S = 0.2  # for what is still in queues when a worker is done
_MAX_IDLE_S = 5.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the matrix and how to measure it.

    Attributes:
        link: Name of the link, for the results.
        payload: Key of `payloads.SHAPES`.
        bytes_per_second: The link's nominal rate; None: no limit.
        threads: TensorFlow threads of this worker, >= 1.
        seconds: Timed rounds stop after about that long, but not before 3.
        max_rounds: Nor do they go on after that many.
        warmup: Rounds before that, besides the one that checks results.
        count_steps: Not 0: counts bytes over that many steps, instead of
            measuring times; fewer, but at least 3, where they would take longer
            than `seconds` for all methods together.
    """

    link: str
    payload: str
    bytes_per_second: float | None
    threads: int
    seconds: float
    max_rounds: int
    warmup: int
    count_steps: int


def measure(cell: Cell) -> dict | None:
    """Runs the cell on all workers; the results on rank 0, None elsewhere."""
    tf.config.threading.set_intra_op_parallelism_threads(cell.threads)
    tf.config.threading.set_inter_op_parallelism_threads(cell.threads)
    tg.init()
    shapes = payloads.SHAPES[cell.payload]
    sizes = [math.prod(shape) for shape in shapes]
    load = [os.getloadavg()[0]]
    gradients = [
        tf.constant(_gradient(tg.rank(), i, shape))
        for i, shape in enumerate(shapes)
    ]
    variables = [
        # What an exchange reads of a variable, without its memory.
        types.SimpleNamespace(
            path=f"{cell.payload}/variable_{i}",
            shape=tf.TensorShape(shape),
            dtype=tf.float32,
        )
        for i, shape in enumerate(shapes)
    ]
    link = _link(cell)
    methods, skipped, compressions = _methods(variables)
    if cell.count_steps:
        return _all_bytes(cell, methods, compressions, gradients, variables)
    for name, method in methods.items():
        _say(f"checking {name}")
        _check(name, method(gradients), shapes)
    parts = {
        "methods": methods,
        "kernels_ms": _kernels(gradients, shapes),
        "compute_ms": _compute(gradients, variables, compressions),
    }
    times, num_rounds = _rounds(cell, parts, gradients)
    load.append(os.getloadavg()[0])

    gathered = collectives.allgather_object(times)
    if tg.rank() != 0:
        return None

    def summaries(kind):
        """Of each round the slowest worker decides."""
        slowest = {
            name: np.max([worker[kind][name] for worker in gathered], axis=0)
            for name in parts[kind]
        }
        return {name: summary(1e3 * x) for name, x in slowest.items()}

    def medians(kind):
        return {name: x["median_ms"] for name, x in summaries(kind).items()}

    return {
        "link": cell.link,
        "rate_bytes_per_s": cell.bytes_per_second,
        "payload": cell.payload,
        "elements": sum(sizes),
        "tensors": len(sizes),
        "workers": tg.size(),
        "threads": cell.threads,
        "cores": os.cpu_count(),
        "rounds": num_rounds,
        "kernels": custom_ops.describe(),
        "tensorflow": tf.__version__,
        "load_before_and_after": load,
        "measured_link": link,
        "kernels_ms": medians("kernels_ms"),
        "compute_ms": medians("compute_ms"),
        "methods": summaries("methods"),
        "skipped": skipped,
    }


def summary(milliseconds) -> dict:
    """Median, p10 and p90."""
    p10, median, p90 = np.percentile(milliseconds, [10, 50, 90])
    return {
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "rounds": len(milliseconds),
    }


def _say(text):
    if tg.rank() == 0:
        print(text, flush=True)


def _gradient(rank, i, shape):
    """Any worker can make any other's."""
    random = np.random.default_rng([rank, i])
    return _SCALE * random.standard_normal(shape, dtype=np.float32)


def _methods(variables):
    """Functions from gradients to averages; those not available; ours."""
    import horovod.tensorflow as hvd

    def horovod(compression, name):
        def exchange(gradients):
            return hvd.grouped_allreduce(
                gradients,
                op=hvd.Average,
                compression=compression,
                name=f"benchmark.{name}",
            )

        return exchange

    def ours(compression, name):
        counter = tf.Variable(0, dtype=tf.int64)

        def exchange(gradients):
            return tg.exchange(
                gradients, variables, compression, step=counter, name=name
            )

        return exchange

    methods = {
        "horovod fp32": horovod(hvd.Compression.none, "fp32"),
        "horovod fp16": horovod(hvd.Compression.fp16, "fp16"),
    }
    skipped, compressions = {}, {}
    for exchange in _EXCHANGES:
        name = f"ternary {exchange}"
        try:
            compression = tg.TernGrad(
                clip_factor=_CLIP_FACTOR, exchange=exchange
            )
        except ValueError as error:
            skipped[name] = str(error)
            _say(f"skipping {name}: {error}")
            continue
        methods[name] = ours(compression, f"benchmark.{exchange}")
        compressions[name] = compression
    compression = tg.TernGrad(
        clip_factor=_CLIP_FACTOR, exempt=[v.path for v in variables[-2:]]
    )
    methods[_FLOAT_LAST_LAYER] = ours(compression, "benchmark.float_last_layer")
    compressions[_FLOAT_LAST_LAYER] = compression
    compiled = {
        name: tf.function(method, jit_compile=False, autograph=False)
        for name, method in methods.items()
    }
    return compiled, skipped, compressions


def _check(name, averages, shapes):
    """The same bits everywhere, and NumPy's result within what rounding or
    randomness allows.

    Raises:
        RuntimeError: They are not.
    """
    digest = 0
    for average in averages:
        digest = zlib.crc32(average.numpy().data, digest)
    digests = collectives.allgather_object(digest)
    if len(set(digests)) != 1:
        raise RuntimeError(
            f"{name}: expected the same bits on all workers. Received "
            f"checksums {digests}"
        )
    left = _CHECKED
    for i in np.argsort([math.prod(shape) for shape in shapes]):
        size = math.prod(shapes[i])
        if left < _CHECKED and size > left:
            break
        left -= size
        average = averages[i].numpy().astype(np.float64)
        own = [_gradient(r, i, shapes[i]) for r in range(tg.size())]
        is_exempt = name == _FLOAT_LAST_LAYER and i >= len(shapes) - 2
        if name.startswith("ternary") and not is_exempt:
            _check_ternary(f"{name}, tensor {i}", average, own)
            continue
        tolerance = 1e-3 if "fp16" in name else 1e-6
        error = np.max(np.abs(average - np.mean(own, axis=0, dtype=float)))
        if error > tolerance * 10 * _SCALE:
            raise RuntimeError(
                f"{name}, tensor {i}: expected NumPy's average. Received an "
                f"error of {error}"
            )


def _check_ternary(name, average, own):
    """Levels k s / N, |k| <= N, whose mean is that of clipped gradients."""
    own = np.stack(own).astype(np.float64)
    limits = []
    for gradient in own:
        largest, sigma = np.max(np.abs(gradient)), np.std(gradient)
        clips = gradient.size >= 32 and sigma >= largest * 2.0**-20
        limits.append(min(largest, _CLIP_FACTOR * sigma) if clips else largest)
    scaler = max(limits)
    levels = average / scaler * len(own)
    if np.max(np.abs(levels)) > len(own) * (1 + 1e-6):
        raise RuntimeError(
            f"{name}: expected averages within the scaler {scaler}. Received "
            f"{np.max(np.abs(average))}"
        )
    if np.max(np.abs(levels - np.round(levels))) > 1e-4:
        raise RuntimeError(
            f"{name}: expected multiples of {scaler / len(own)}. Received "
            "values between"
        )
    limits = np.reshape(limits, [-1] + [1] * (own.ndim - 1))
    clipped = np.clip(own, -limits, limits)
    variance = np.sum(scaler * np.abs(clipped) - clipped**2)
    z = np.sum(average * len(own) - np.sum(clipped, axis=0))
    z /= math.sqrt(variance) or 1.0
    if abs(z) > 6:  # once in 5e8 by chance
        raise RuntimeError(f"{name}: expected no bias. Received z = {z:.1f}")


def _time(method, gradients):
    """Seconds of this worker from gradients to averages."""
    collectives.barrier()
    start = time.perf_counter()
    averages = method(gradients)
    tf.test.experimental.sync_devices()
    seconds = time.perf_counter() - start
    del averages
    return seconds


def _rounds(cell, parts, gradients):
    """Seconds of each round of all functions, in turn; number of rounds."""
    functions = [
        (kind, name, function)
        for kind, named in parts.items()
        for name, function in named.items()
    ]
    warmup = []
    for _ in range(max(1, cell.warmup)):
        start = time.perf_counter()
        for _, _, function in functions:
            _time(function, gradients)
        warmup.append(time.perf_counter() - start)
    num_rounds = collectives.broadcast_object(
        _fit(cell.seconds, min(warmup), cell.max_rounds)
    )
    _say(f"{num_rounds} rounds")
    times = {
        kind: {name: [] for name in named} for kind, named in parts.items()
    }
    for _ in range(num_rounds):
        for kind, name, function in functions:
            times[kind][name].append(_time(function, gradients))
    return times, num_rounds


def _fit(seconds, each, most):
    """How many fit into that time; at least 3."""
    return max(3, min(most, int(seconds / each)))


def _sent():
    """Bytes that this worker's device has sent."""
    device = os.environ["LINK_DEVICE"]
    file = pathlib.Path(f"/sys/class/net/{device}/statistics/tx_bytes")
    return int(file.read_text())


def _all_bytes(cell, methods, compressions, gradients, variables):
    """Bytes of every method, on rank 0; None elsewhere."""
    sizes = [math.prod(v.shape) for v in variables]
    results = {}
    for name, method in methods.items():
        _say(f"counting {name}")
        _time(method, gradients)
        counts = collectives.allgather_object(
            _count_bytes(cell, method, gradients, cell.seconds / len(methods))
        )
        bits_sent = None
        if name in compressions:
            bits_sent = compressions[name].bits_sent(
                sizes, [v.path for v in variables], tg.size()
            )
        results[name] = _worst_count(counts, bits_sent)
    return results if tg.rank() == 0 else None


def _count_bytes(cell, method, gradients, seconds):
    """Bytes of many steps, and of idle time."""
    steps = collectives.broadcast_object(
        _fit(seconds, _time(method, gradients), cell.count_steps)
    )
    collectives.barrier()
    time.sleep(_SETTLE_S)
    before, start = _sent(), time.perf_counter()
    for _ in range(steps):
        method(gradients)
    tf.test.experimental.sync_devices()
    time.sleep(_SETTLE_S)
    sent, seconds = _sent() - before, time.perf_counter() - start
    collectives.barrier()
    before, start = _sent(), time.perf_counter()
    time.sleep(min(seconds, _MAX_IDLE_S))
    idle = (_sent() - before) * seconds / (time.perf_counter() - start)
    collectives.barrier()
    return {
        "steps": steps,
        "per_step": sent / steps,
        "idle_per_step": idle / steps,
        "net_per_step": (sent - idle) / steps,
    }


def _worst_count(counts, bits_sent):
    """Of the worker that sent most, beside what the formula says."""
    worst = max(counts, key=lambda count: count["net_per_step"])
    if bits_sent is None:
        return worst
    expected = bits_sent / 8
    error = abs(worst["net_per_step"] - expected)
    return worst | {
        "expected_per_step": expected,
        "within_3_percent_and_20_kb": error <= 0.03 * expected + 20e3,
    }


class _NoNetwork:
    """Stands for `collectives.Workers` as if all others had sent the same."""

    def __init__(self):
        self.size, self.rank = tg.size(), tg.rank()

    def max(self, tensor, name):
        return tensor

    def sum(self, tensor, name):
        return tensor * tf.cast(self.size, tensor.dtype)

    def sum_all(self, tensors, name):
        return [self.sum(tensor, name) for tensor in tensors]

    def gather(self, tensor, name):
        return tf.tile(tensor, [self.size])

    def all_to_all(self, tensor, name):
        shard = tf.size(tensor) // self.size
        return tf.tile(tensor[:shard], [self.size])


def _kernels(gradients, shapes):
    """Our ops alone, as functions of gradients."""
    codec = dict(bucket_size=0, num_workers=tg.size())

    @tf.function(autograph=False)
    def scalers(tensors):
        return custom_ops.ternary_scalers(tensors, _CLIP_FACTOR, 0)

    @tf.function(autograph=False)
    def encode(tensors, levels):
        return custom_ops.ternary_encode(
            tensors,
            levels,
            levels,
            tf.constant(0, tf.int64),
            tensor_ids=list(range(len(shapes))),
            rank=tg.rank(),
            seed=0,
            **codec,
        )[0]

    @tf.function(autograph=False)
    def decode(payload, levels):
        return custom_ops.ternary_decode(
            payload,
            levels,
            [tf.constant(shape, tf.int64) for shape in shapes],
            [tf.float32] * len(shapes),
            **codec,
        )

    levels = scalers(gradients)
    total = encode(gradients, levels) * tg.size()
    return {
        "scalers": scalers,
        "encode": lambda tensors: encode(tensors, levels),
        "decode": lambda tensors: decode(total, levels),
    }


def _compute(gradients, variables, compressions):
    """Each exchange with no network, as functions of gradients."""

    def copy(arrays):
        """What Horovod does around the transport: into its buffer, a
        division, and out again; all three are there before.
        """
        sizes = [array.size for array in arrays]
        parts = np.split(
            np.zeros(sum(sizes), arrays[0].dtype), np.cumsum(sizes)[:-1]
        )
        results = [np.zeros_like(array) for array in arrays]

        def run(tensors):
            for array, part, result in zip(arrays, parts, results, strict=True):
                np.copyto(part, array.reshape(-1))
                part *= part.dtype.type(1 / tg.size())
                np.copyto(result.reshape(-1), part)

        return run

    def casts(tensors):
        halves = [tf.cast(g, tf.float16) for g in tensors]
        return [tf.cast(g, tf.float32) for g in halves]

    def ternary(compression):
        def average(tensors):
            return compression.average(
                [tensors],
                paths=[v.path for v in variables],
                ids=list(range(len(variables))),
                step=tf.constant(0, tf.int64),
                workers=_NoNetwork(),
                name="benchmark.alone",
            )

        return average

    arrays = [g.numpy() for g in gradients]
    copy16 = copy([a.astype(np.float16) for a in arrays])
    cast = tf.function(casts, autograph=False)

    def fp16(tensors):
        """Without the sum of halves inside Gloo, which has no vector code."""
        copy16(tensors)
        return cast(tensors)

    functions = {"fp32": copy(arrays), "fp16": fp16}
    for name, compression in compressions.items():
        name = name.removeprefix("ternary ")
        functions[name] = tf.function(ternary(compression), autograph=False)
    return functions


def _link(cell):
    """The link itself, measured without Horovod, and one small collective."""
    latency, bandwidth, busy_share = _probe(cell)
    workers = collectives.Workers()

    @tf.function(autograph=False)
    def small(tensor):
        return workers.max(tensor, "benchmark.small")

    idle = _small_s(small)
    busy = _small_s(small, _Busy())
    return {
        "alpha_s": collectives.broadcast_object(latency),
        "bytes_per_s": min(collectives.allgather_object(bandwidth)),
        "busy_share": busy_share,
        "small_allreduce_s": idle,
        "small_allreduce_busy_s": busy,
    }


class _Busy:
    """Keeps this worker's core busy with our kernels, from a thread."""

    def __enter__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        gradient = [tf.ones([4_000_000])]  # some milliseconds a call
        while not self._stop.is_set():
            custom_ops.ternary_scalers(gradient, _CLIP_FACTOR, 0)


def _small_s(small, meanwhile=None):
    """Seconds of a small allreduce, the median of the slowest worker's."""
    tensor = tf.constant([1.0])
    times = []
    with meanwhile or contextlib.nullcontext():
        small(tensor)
        for _ in range(50):
            collectives.barrier()
            start = time.perf_counter()
            small(tensor)
            times.append(time.perf_counter() - start)
        # Those who are done first would leave the others an idle core.
        collectives.barrier()
    gathered = collectives.allgather_object(times)
    return float(np.median(np.max(gathered, axis=0)))


def _probe(cell):
    """Seconds one way between ranks 0 and 1; with all sending: bytes a second,
    and the share of that time in which the workers' cores are busy.

    Every worker opens a TCP connection to the next one. (0, inf, 0) for one
    worker.
    """
    if tg.size() == 1:
        return 0.0, math.inf, 0.0
    num_bytes = int(cell.bytes_per_second or 256e6)
    num_bytes = max(4_000_000, min(256_000_000, num_bytes))
    address = os.environ.get("LINK_ADDRESS", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((address, 0)))
        peers = collectives.allgather_object(server.getsockname())
        following = stack.enter_context(
            socket.create_connection(peers[(tg.rank() + 1) % tg.size()])
        )
        previous = stack.enter_context(server.accept()[0])
        for connection in (following, previous):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        collectives.barrier()
        # One byte goes round the ring.
        trips = []
        for _ in range(100):
            start = time.perf_counter()
            if tg.rank() == 0:
                following.sendall(b"x")
                previous.recv(1)
            else:
                previous.recv(1)
                following.sendall(b"x")
            trips.append((time.perf_counter() - start) / tg.size())
        collectives.barrier()
        chunk = bytes(1 << 20)
        busy, start = _busy_s(), time.perf_counter()

        def send():
            left = num_bytes
            while left:
                left -= following.send(chunk[: min(left, len(chunk))])

        sender = threading.Thread(target=send)
        sender.start()
        left, buffer = num_bytes, bytearray(1 << 20)
        while left:
            left -= previous.recv_into(buffer, min(left, len(buffer)))
        seconds = time.perf_counter() - start
        busy = _busy_s() - busy
        sender.join()
    cores = min(tg.size(), os.cpu_count())
    share = min(1.0, busy / seconds / cores)
    return statistics.median(trips), num_bytes / seconds, share


def _busy_s():
    """Seconds of all of this host's cores, the kernel's included."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq
