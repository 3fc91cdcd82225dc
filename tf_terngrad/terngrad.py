"""TernGrad: gradients of three levels."""

import fnmatch
import functools

import keras
import tensorflow as tf

import custom_ops
from tf_terngrad import checks, sparse
from tf_terngrad.compression import Compression, pick, ring_bits
from tf_terngrad.float_compression import NoCompression

# Made once: compressions are numbered.
_FLOAT = NoCompression()


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

    Departure: tensors of fewer than 32 elements, or with
    sigma < max|g| / 2^20, are not clipped.

    Args:
        clip_factor: Float > 0: clips at that many standard deviations of the
            tensor, about its mean. None: no clipping. Defaults to 2.5.
        clip_mode: "own": each worker clips at its own level (the paper);
            "shared": at the shared scaler. Defaults to "own".
        bucket_size: Elements that share a scaler; None: one scaler a tensor.
            Sparse gradients have one scaler a tensor always.
        min_size: Variables of fewer elements travel in float. Defaults to 0.
        exempt: Patterns (`fnmatch`, such as "*/bias" or "logits/*") of
            variable paths whose gradients travel in float. Each must match.
        exchange: "allreduce": base-(2N + 1) digits in int64 words, 2.4 bits
            an element for N = 2; "auto": the best there is.
        seed: Int; with step, rank and tensor it keys the random bits.

    >>> TernGrad(clip_factor=None, exempt=["*/bias"]).exempt
    ('*/bias',)

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
        if clip_factor is not None:
            clip_factor = checks.positive_float("clip_factor", clip_factor)
        checks.choice("clip_mode", clip_mode, ("own", "shared"))
        checks.choice("exchange", exchange, ("auto", "allreduce"))
        if bucket_size is not None:
            checks.integer("bucket_size", bucket_size, 1)
        checks.integer("min_size", min_size, 0)
        checks.integer("seed", seed, -(2**63))
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
        floats, dense, rows = [], [], []
        for i, gradient in enumerate(gradients[0]):
            if self._travels_in_float(paths[i], gradient):
                floats.append(i)
            elif sparse.is_sparse(gradient):
                rows.append(i)
            else:
                dense.append(i)
        averages = {}
        if floats:
            averaged = _FLOAT.average(
                pick(floats, gradients),
                [paths[i] for i in floats],
                [ids[i] for i in floats],
                step,
                workers,
                f"{name}.float",
            )
            averages |= zip(floats, averaged, strict=True)

        # Rows of one index are one row from here on.
        row_slices = [
            [sparse.merge_duplicates(s) for s in local]
            for local in pick(rows, gradients)
        ]
        row_values = [[s.values for s in local] for local in row_slices]
        dense_gradients = pick(dense, gradients)
        own, num_dense = self._scalers(dense_gradients, row_values)
        if own is None:
            return [averages[i] for i in range(len(paths))]
        scalers = workers.max(
            functools.reduce(tf.maximum, own), f"{name}.scalers"
        )
        clip_levels = (
            own if self.clip_mode == "own" else [scalers] * len(gradients)
        )
        encode = functools.partial(
            self._encode, step=step, workers=workers, statistics=statistics
        )
        if dense:
            averaged = self._average_dense(
                dense_gradients,
                [level[:num_dense] for level in clip_levels],
                scalers[:num_dense],
                functools.partial(encode, ids=[ids[i] for i in dense]),
                workers,
                name,
            )
            averages |= zip(dense, averaged, strict=True)
        if rows:
            averaged = self._average_rows(
                row_slices,
                [level[num_dense:] for level in clip_levels],
                scalers[num_dense:],
                functools.partial(encode, ids=[ids[i] for i in rows]),
                workers,
                name,
            )
            averages |= zip(rows, averaged, strict=True)
        return [averages[i] for i in range(len(paths))]

    def _scalers(self, dense, rows):
        """Each local worker's scalers, and how many are of dense tensors."""
        own = []
        num_dense = 0
        for dense_local, rows_local in zip(dense, rows, strict=True):
            parts = []
            if dense_local:
                parts.append(
                    custom_ops.ternary_scalers(
                        dense_local, self.clip_factor, self.bucket_size or 0
                    )
                )
                num_dense = tf.size(parts[0])
            if rows_local:
                parts.append(
                    custom_ops.ternary_scalers(rows_local, self.clip_factor, 0)
                )
            if not parts:
                return None, 0
            if any(part.dtype == tf.float64 for part in parts):
                parts = [tf.cast(part, tf.float64) for part in parts]
            own.append(tf.concat(parts, axis=0))
        return own, num_dense

    def _encode(
        self,
        gradients,
        clip_levels,
        scalers,
        *,
        ids,
        bucket_size,
        num_workers,
        step,
        workers,
        statistics,
    ):
        """Each local worker's payload."""
        payloads = []
        for i, local in enumerate(gradients):
            payload, num_nonzero, num_clipped = custom_ops.ternary_encode(
                local,
                clip_levels[i],
                scalers,
                step,
                tensor_ids=ids,
                bucket_size=bucket_size,
                num_workers=num_workers,
                rank=workers.rank * len(gradients) + i,
                seed=self.seed,
            )
            payloads.append(payload)
            if statistics is not None:
                sizes = tf.stack([tf.size(g, tf.int64) for g in local])
                statistics.count(ids, sizes, num_nonzero, num_clipped)
        return payloads

    def _average_dense(
        self, gradients, clip_levels, scalers, encode, workers, name
    ):
        """Sums of digits, by allreduce."""
        codec = dict(
            bucket_size=self.bucket_size or 0,
            num_workers=workers.size * len(gradients),
        )
        payloads = encode(gradients, clip_levels, scalers, **codec)
        total = workers.sum(
            functools.reduce(tf.add, payloads), f"{name}.payload"
        )
        return custom_ops.ternary_decode(
            total,
            scalers,
            [tf.shape(g, tf.int64) for g in gradients[0]],
            [g.dtype for g in gradients[0]],
            **codec,
        )

    def _average_rows(
        self, slices, clip_levels, scalers, encode, workers, name
    ):
        """Levels of rows by allgather, summed where indices meet."""
        # Nothing is added on the way: digits of one worker, 1.6 bits each.
        codec = dict(bucket_size=0, num_workers=1)
        payloads = encode(
            [[s.values for s in local] for local in slices],
            clip_levels,
            scalers,
            **codec,
        )
        indices = sparse.gather_indices(slices, workers, name)
        shapes = [
            [
                tf.concat(
                    [[tf.size(i, tf.int64)], tf.shape(s.values, tf.int64)[1:]],
                    axis=0,
                )
                for i, s in zip(of_worker, slices[0], strict=True)
            ]
            for of_worker in indices
        ]
        digits = custom_ops.digits_per_word(1)
        lengths = [
            tf.add_n([-(-tf.reduce_prod(s) // digits) for s in of_worker]) + 1
            for of_worker in shapes
        ]
        parts = sparse.gather_parts(payloads, lengths, workers, f"{name}.rows")
        wide = [sparse.sum_dtype(s.values.dtype) for s in slices[0]]
        levels = [
            custom_ops.ternary_decode(
                part, tf.ones_like(scalers), of_worker, wide, **codec
            )
            for part, of_worker in zip(parts, shapes, strict=True)
        ]
        averages = []
        for t, like in enumerate(slices[0]):
            total = sparse.sum_rows(
                [of_worker[t] for of_worker in levels],
                [of_worker[t] for of_worker in indices],
                like,
            )
            scaler = tf.cast(scalers[t], wide[t])
            ratio = tf.where(
                tf.math.is_inf(scaler),
                tf.cast(float("nan"), wide[t]),
                scaler / len(indices),
            )
            values = tf.cast(total.values * ratio, like.values.dtype)
            averages.append(
                tf.IndexedSlices(values, total.indices, total.dense_shape)
            )
        return averages

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
            "exempt": list(self.exempt),
            "exchange": self.exchange,
            "seed": self.seed,
        }

    def _is_exempt(self, path) -> bool:
        return any(fnmatch.fnmatchcase(path, p) for p in self.exempt)

    def _travels_in_float(self, path, gradient) -> bool:
        if not self.min_size:
            return self._is_exempt(path)
        shape = gradient.shape
        if not shape.is_fully_defined():
            raise ValueError(
                "Invalid value for argument min_size. Expected 0: the shape "
                f"of the gradient of {path} is not known. Received: "
                f"min_size={self.min_size}"
            )
        return self._is_exempt(path) or shape.num_elements() < self.min_size
