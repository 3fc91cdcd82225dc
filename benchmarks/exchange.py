"""Time of one exchange of gradients, against Horovod's own.

    horovodrun -np 2 --gloo python benchmarks/exchange.py

Real workers, over whatever link the hosts have (one host: loopback). Each
round times every way once, in turn, each a compiled tf.function from gradients
to averaged gradients; the table gives medians over rounds on the slowest
worker and their ratio to Horovod's fused fp32 exchange in the same run.
Correctness is checked in the same run.
"""

import json
import os
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

import custom_ops
import tf_terngrad as tg

# Shapes of all gradients, in order.
_PAYLOADS = {
    "lenet": [
        (5, 5, 1, 20),
        (20,),
        (5, 5, 20, 50),
        (50,),
        (800, 500),
        (500,),
        (500, 10),
        (10,),
    ],
    "5m": [(1000, 1000)] * 5,
}

_PAYLOAD = flags.DEFINE_enum(
    "payload", "lenet", sorted(_PAYLOADS), "Gradients to exchange."
)
_ROUNDS = flags.DEFINE_integer("rounds", 200, "Timed rounds.", lower_bound=1)
_WARMUP = flags.DEFINE_integer("warmup", 20, "Rounds before that.")
_THREADS = flags.DEFINE_integer(
    "threads", 0, "TensorFlow threads a worker; 0: cores / workers here."
)
_JSON = flags.DEFINE_string("json", None, "File for the results.")


def _ways(variables) -> dict:
    """Name -> function from gradients to averages."""
    import horovod.tensorflow as hvd

    def horovod(compression):
        def exchange(gradients):
            return hvd.grouped_allreduce(
                gradients, op=hvd.Average, compression=compression
            )

        return exchange

    def ours(compression, name):
        counter = tf.Variable(0, dtype=tf.int64)

        def exchange(gradients):
            return tg.exchange(
                gradients, variables, compression, step=counter, name=name
            )

        return exchange

    ways = {
        "horovod fp32": horovod(hvd.Compression.none),
        "horovod fp16": horovod(hvd.Compression.fp16),
        "ternary": ours(tg.TernGrad(), "ternary"),
        "ternary, no clipping": ours(
            tg.TernGrad(clip_factor=None), "ternary_max"
        ),
    }
    return {
        name: tf.function(way, jit_compile=False) for name, way in ways.items()
    }


def _check(ways, gradients) -> None:
    """Averages must be those of float, or of ternary levels of them."""
    exact = ways["horovod fp32"](gradients)
    for name, way in ways.items():
        for average, expected in zip(way(gradients), exact, strict=True):
            if "ternary" in name:
                levels = np.unique(average.numpy())
                if len(levels) > 2 * tg.size() + 1:
                    raise RuntimeError(f"{name}: {len(levels)} levels")
            else:
                np.testing.assert_allclose(average, expected, atol=1e-2)


def main(argv):
    """Runs the rounds and prints the table on rank 0."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    tg.init()
    threads = _THREADS.value or max(1, os.cpu_count() // tg.local_size())
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    shapes = _PAYLOADS[_PAYLOAD.value]
    random = np.random.default_rng(tg.rank())
    gradients = [
        tf.constant(random.normal(size=shape).astype(np.float32))
        for shape in shapes
    ]
    variables = [tf.Variable(tf.zeros_like(g)) for g in gradients]
    ways = _ways(variables)
    _check(ways, gradients)

    times = {name: [] for name in ways}
    for i in range(_WARMUP.value + _ROUNDS.value):
        for name, way in ways.items():
            tg.collectives.barrier()
            start = time.perf_counter()
            for average in way(gradients):
                average.numpy()
            if i >= _WARMUP.value:
                times[name].append(1e3 * (time.perf_counter() - start))
    # The slowest worker decides.
    gathered = tg.collectives.allgather_object(times)
    if tg.rank() != 0:
        return
    slowest = {
        name: np.max([worker[name] for worker in gathered], axis=0)
        for name in ways
    }
    elements = sum(int(np.prod(shape)) for shape in shapes)
    result = {
        "payload": _PAYLOAD.value,
        "elements": elements,
        "workers": tg.size(),
        "threads": threads,
        "rounds": _ROUNDS.value,
        "kernels": custom_ops.describe(),
        "ms": {},
    }
    baseline = np.median(slowest["horovod fp32"])
    print(
        f"{_PAYLOAD.value}: {elements:,} elements in {len(shapes)} tensors, "
        f"{tg.size()} workers, {threads} threads each, {_ROUNDS.value} rounds, "
        f"{custom_ops.describe()}"
    )
    print(f"{'':24}{'median ms':>10}{'p10':>8}{'p90':>8}{'x fp32':>8}")
    for name, values in slowest.items():
        p10, median, p90 = np.percentile(values, [10, 50, 90])
        print(
            f"{name:24}{median:10.2f}{p10:8.2f}{p90:8.2f}"
            f"{median / baseline:8.2f}"
        )
        result["ms"][name] = {"median": median, "p10": p10, "p90": p90}
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    app.run(main)
