"""What a worker sends of its gradients: everything, half of it, or signs.

A compression averages lists of dense gradients over workers.
"""

import abc
import fnmatch
import functools

import keras
import tensorflow as tf

import custom_ops
from tf_terngrad import collectives


class Compression(abc.ABC):
    """How gradients travel. Use `NoCompression`, `FP16` or `TernGrad`."""

    @functools.cached_property
    def step(self) -> tf.Variable:
        """Exchanges so far: the counter of `tg.exchange` without `step`."""
        with tf.init_scope():
            return tf.Variable(0, dtype=tf.int64, trainable=False)

    @abc.abstractmethod
    def average(
        self, gradients, paths, ids, step, workers, name, statistics=None
    ) -> list:
        """Averages dense gradients over all workers.

        Args:
            gradients: `[local workers][tensors]`: one list for each worker
                that this process stands for (one, or those of LocalWorkers).
            paths: One name a tensor, for patterns and messages.
            ids: One number a tensor: its position in the variable list.
            step: int64 scalar tensor, the number of this exchange.
            workers: `collectives.Workers`.
            name: Prefix of the collectives' names.
            statistics: `ExchangeStatistics` to update, or None.

        Returns:
            One tensor for each of `ids`, of the gradient's shape and dtype.
        """

    @abc.abstractmethod
    def bits_sent(self, sizes, paths, num_workers: int) -> float:
        """Bits that one worker sends for one exchange of such tensors.

        Counts payload and scalers, not the transport's own headers.

        Args:
            sizes: Elements of each dense tensor.
            paths: One name a tensor.
            num_workers: N.
        """

    def check(self, paths) -> None:
        """Raises ValueError if this does not fit variables of these names."""

    def get_config(self) -> dict:
        """Constructor arguments, as plain Python values."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Compression":
        """Inverse of `get_config`."""
        return cls(**config)

    def agreement(self) -> dict:
        """What all workers must have in common: all but the seed."""
        config = {k: v for k, v in self.get_config().items() if k != "seed"}
        return {"class": type(self).__name__, **config}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def ring_bits(bits: float, num_workers: int) -> float:
    """Bits each worker sends in a ring allreduce of a buffer of `bits`.

    2 (N - 1) / N times the buffer; 0 for one worker.
    """
    return 2.0 * (num_workers - 1) / num_workers * bits


@keras.saving.register_keras_serializable(package="tf_terngrad")
class NoCompression(Compression):
    """Gradients in their own precision: the float baseline.

    bfloat16 travels as float32: Horovod has no bfloat16.
    """

    _bits_per_element = 32

    def average(
        self, gradients, paths, ids, step, workers, name, statistics=None
    ):
        """See `Compression.average`."""
        del paths, ids, step, statistics
        num_workers = workers.size * len(gradients)
        sums = [tf.add_n(list(tensors)) for tensors in zip(*gradients)]
        wire = [self._to_wire(tensor) for tensor in sums]
        averages = list(sums)
        # One collective for each dtype; nothing is sent of empty tensors.
        for dtype in sorted({tensor.dtype.name for tensor in wire}):
            members = [
                i
                for i, tensor in enumerate(wire)
                if tensor.dtype.name == dtype
                and tensor.shape.num_elements() != 0
            ]
            totals = workers.sum_all(
                [wire[i] for i in members], f"{name}.{dtype}"
            )
            for i, total in zip(members, totals, strict=True):
                total = tf.cast(total, self._sum_dtype(sums[i].dtype))
                averages[i] = tf.cast(total / num_workers, sums[i].dtype)
        return averages

    def bits_sent(self, sizes, paths, num_workers):
        """See `Compression.bits_sent`."""
        del paths
        return ring_bits(self._bits_per_element * sum(sizes), num_workers)

    def _to_wire(self, tensor):
        return tf.cast(tensor, self._sum_dtype(tensor.dtype))

    @staticmethod
    def _sum_dtype(dtype):
        return tf.float32 if dtype == tf.bfloat16 else dtype


@keras.saving.register_keras_serializable(package="tf_terngrad")
class FP16(NoCompression):
    """Gradients as float16 on the wire: Horovod's own compression."""

    _bits_per_element = 16

    def _to_wire(self, tensor):
        return tf.cast(tensor, tf.float16)

    @staticmethod
    def _sum_dtype(dtype):
        # The sum is divided in float32, so that only the wire is narrow.
        return tf.float64 if dtype == tf.float64 else tf.float32


@keras.saving.register_keras_serializable(package="tf_terngrad")
class TernGrad(Compression):
    """Gradients of three levels, without bias.

    Each element of a gradient is sent as -1, 0 or +1 and stands for that times
    a scaler s, shared by a bucket and by all workers:

        s = max over workers of min(max|g|, clip_factor * sigma)
        P(sign(g) is sent) = min(|g|, clip level) / s,  else 0 is sent

    The result is the exact sum of the levels times s / N: the same bits on
    every worker, and in expectation the average of the clipped gradients. A
    bucket with a NaN or an infinity on any worker arrives as NaN on all.

    Args:
        clip_factor: Float > 0: clips at that many standard deviations of the
            tensor, about its mean; tensors below 32 elements are not clipped.
            None: no clipping. Defaults to 2.5.
        clip_mode: "own": each worker clips at its own level (the paper);
            "shared": at the shared scaler. Defaults to "own".
        bucket_size: Elements that share a scaler; None: one scaler a tensor.
        min_size: Tensors of fewer elements travel in float. Defaults to 0.
        exempt: Patterns (`fnmatch`, such as "*/bias" or "logits/*") of
            variable paths whose gradients travel in float. Each must match.
        exchange: "allreduce": base-(2N + 1) digits in int64 words, 2.4 bits
            an element for N = 2; "auto": the best there is.
        seed: Int; with step, rank and tensor it keys the random bits.

    >>> TernGrad(clip_factor=None)
    TernGrad(clip_factor=None, clip_mode='own', bucket_size=None, min_size=0, \
exempt=(), exchange='auto', seed=0)

    Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication
    in Distributed Deep Learning", NIPS 2017.
    """

    def __init__(
        self,
        clip_factor=2.5,
        clip_mode="own",
        bucket_size=None,
        min_size=0,
        exempt=(),
        exchange="auto",
        seed=0,
    ):
        if clip_factor is not None and not 0 < clip_factor < float("inf"):
            raise ValueError(
                "Invalid value for argument clip_factor. Expected a number "
                "> 0, or None for no clipping. Received: "
                f"clip_factor={clip_factor!r}"
            )
        _check_choice("clip_mode", clip_mode, ("own", "shared"))
        _check_choice("exchange", exchange, ("auto", "allreduce"))
        if bucket_size is not None:
            _check_int("bucket_size", bucket_size, 1, "or None for one bucket")
        _check_int("min_size", min_size, 0)
        _check_int("seed", seed, -(2**63))
        if isinstance(exempt, str):
            raise TypeError(
                "Invalid type for argument exempt. Expected a tuple of "
                f"patterns. Received: exempt={exempt!r}"
            )
        self.clip_factor = clip_factor
        self.clip_mode = clip_mode
        self.bucket_size = bucket_size
        self.min_size = min_size
        self.exempt = tuple(exempt)
        self.exchange = exchange
        self.seed = seed

    def average(
        self, gradients, paths, ids, step, workers, name, statistics=None
    ):
        """See `Compression.average`."""
        floats = [
            i
            for i, path in enumerate(paths)
            if self._travels_in_float(path, gradients[0][i])
        ]
        ternary = [i for i in range(len(paths)) if i not in set(floats)]
        averages = [None] * len(paths)

        def of(positions, values):
            return [values[i] for i in positions]

        if floats:
            averaged = NoCompression().average(
                [of(floats, local) for local in gradients],
                of(floats, paths),
                of(floats, ids),
                step,
                workers,
                name,
            )
            for i, average in zip(floats, averaged, strict=True):
                averages[i] = average
        if ternary:
            averaged = self._average_ternary(
                [of(ternary, local) for local in gradients],
                of(ternary, ids),
                step,
                workers,
                name,
                statistics,
            )
            for i, average in zip(ternary, averaged, strict=True):
                averages[i] = average
        return averages

    def _average_ternary(
        self, gradients, ids, step, workers, name, statistics
    ):
        num_workers = workers.size * len(gradients)
        bucket_size = self.bucket_size or 0
        own = [
            custom_ops.ternary_scalers(local, self.clip_factor, bucket_size)
            for local in gradients
        ]
        scalers = workers.max(_reduce(tf.maximum, own), f"{name}.scalers")
        encoded = [
            custom_ops.ternary_encode(
                local,
                own[i] if self.clip_mode == "own" else scalers,
                scalers,
                step,
                tensor_ids=ids,
                bucket_size=bucket_size,
                num_workers=num_workers,
                rank=workers.rank * len(gradients) + i,
                seed=self.seed,
            )
            for i, local in enumerate(gradients)
        ]
        payloads, num_nonzero, num_clipped = zip(*encoded)
        if statistics is not None:
            sizes = [tf.size(g, tf.int64) for g in gradients[0]]
            statistics.count(
                ids,
                len(gradients) * tf.stack(sizes),
                _reduce(tf.add, num_nonzero),
                _reduce(tf.add, num_clipped),
            )
        total = workers.sum(_reduce(tf.add, payloads), f"{name}.payload")
        return custom_ops.ternary_decode(
            total,
            scalers,
            [tf.shape(g, tf.int64) for g in gradients[0]],
            [g.dtype for g in gradients[0]],
            bucket_size=bucket_size,
            num_workers=num_workers,
        )

    def bits_sent(self, sizes, paths, num_workers):
        """See `Compression.bits_sent`."""
        bits = 64.0  # the guard word
        for size, path in zip(sizes, paths, strict=True):
            if size < self.min_size or self._is_exempt(path):
                bits += 32.0 * size
                continue
            words = custom_ops.num_words(size, num_workers)
            buckets = -(-size // self.bucket_size) if self.bucket_size else 1
            bits += 64.0 * words + 32.0 * buckets
        return ring_bits(bits, num_workers)

    def check(self, paths):
        """Raises ValueError if a pattern in `exempt` matches no variable."""
        for pattern in self.exempt:
            if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                raise ValueError(
                    "Invalid value for argument exempt. Expected patterns "
                    f"that match a variable, one of {sorted(paths)}. "
                    f"Received: {pattern!r}"
                )

    def get_config(self):
        """See `Compression.get_config`."""
        return {
            "clip_factor": self.clip_factor,
            "clip_mode": self.clip_mode,
            "bucket_size": self.bucket_size,
            "min_size": self.min_size,
            "exempt": self.exempt,
            "exchange": self.exchange,
            "seed": self.seed,
        }

    def _is_exempt(self, path) -> bool:
        return any(fnmatch.fnmatchcase(path, p) for p in self.exempt)

    def _travels_in_float(self, path, gradient) -> bool:
        size = gradient.shape.num_elements()
        if size is None and self.min_size:
            raise ValueError(
                "Invalid value for argument min_size. Expected 0: the shape "
                f"of the gradient of {path} is not known. Received: "
                f"min_size={self.min_size}"
            )
        return self._is_exempt(path) or (self.min_size and size < self.min_size)


def _reduce(function, tensors):
    """function(function(t0, t1), t2) ..., in order."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = function(total, tensor)
    return total


def _check_choice(name, value, choices):
    if value not in choices:
        expected = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"Invalid value for argument {name}. Expected one of "
            f"{{{expected}}}. Received: {name}={value!r}"
        )


def _check_int(name, value, least, alternative=""):
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < least:
        alternative = f", {alternative}" if alternative else ""
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= "
            f"{least}{alternative}. Received: {name}={value!r}"
        )
