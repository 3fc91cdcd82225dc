"""TernGrad: gradients of three levels."""

import dataclasses
import fnmatch
import functools
import zlib

import keras
import tensorflow as tf

import custom_ops
from tf_terngrad import checks, sparse, wire
from tf_terngrad.codec import Codec
from tf_terngrad.compression import Compression, pick, ring_bits
from tf_terngrad.float_compression import NoCompression
from tf_terngrad.link import Link
from tf_terngrad.ternary_rows import average_rows

# Made once: compressions are numbered.
_FLOAT = NoCompression()
# Entries that travel with the scalers, see _share.
_CHECK_SIZE = 2


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
        exchange: "allgather": five trits a byte from every worker to every
            worker; "allreduce": base-(2N + 1) digits in int64 words, added on
            the way; "alltoall": trits to the owners of shards, exact sums back
            as digits; "auto": the one that takes the least time by
            `wire.choose`. All give the same bits.
        float_every: k: every k-th exchange travels in float. A pair (period,
            length): the last `length` of each `period` do, so every k-th epoch
            is (k * steps_per_epoch, steps_per_epoch). None: none.
        warmup_steps: The first so many exchanges travel in float.
        error_feedback: What clipping removed from a dense gradient is added to
            the next one (`tg.ErrorFeedback`). Not with LossScaleOptimizer,
            which changes the scale of gradients.
        seed: Int; with step, rank and tensor it keys the random bits.
        link: `tg.Link`, for "auto" and `parts`: what `tg.measure_link()`
            returns, the same on all workers. None: 1 ms a collective, 1 Gbit/s.
        parts: Parts into which a payload is cut, so that encoding, sending and
            decoding overlap. None: by `wire.choose_parts`. The bits do not
            depend on it.

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
        float_every=None,
        warmup_steps=0,
        error_feedback=False,
        seed=0,
        link=None,
        parts=None,
    ):
        if clip_factor is not None:
            clip_factor = checks.positive_float("clip_factor", clip_factor)
        checks.choice("clip_mode", clip_mode, ("own", "shared"))
        checks.choice("exchange", exchange, ("auto", *wire.EXCHANGES))
        if bucket_size is not None:
            checks.integer("bucket_size", bucket_size, 1)
        if parts is not None:
            checks.integer("parts", parts, 1)
        checks.integer("min_size", min_size, 0)
        checks.integer("warmup_steps", warmup_steps, 0)
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
        self.link = _to_link(link)
        self.parts = parts
        self.float_every = _to_period(float_every)
        self.warmup_steps = warmup_steps
        self.error_feedback = bool(error_feedback)
        self.seed = seed

    def average(
        self,
        gradients,
        paths,
        ids,
        step,
        workers,
        name,
        statistics=None,
        feedback=None,
    ):
        """See `Compression.average`."""
        if self.error_feedback and feedback is None:
            raise ValueError(
                "Invalid value for argument error_feedback. Expected "
                "tg.exchange(..., feedback=tg.ErrorFeedback(variables)) or "
                "tg.DistributedOptimizer, which keep what clipping removed. "
                "Received: error_feedback=True"
            )
        ternary = [
            i
            for i, gradient in enumerate(gradients[0])
            if not self._travels_in_float(paths[i], gradient)
        ]
        feedback_ids = []
        if self.error_feedback:
            dense = [
                i for i in ternary if not sparse.is_sparse(gradients[0][i])
            ]
            feedback_ids = [ids[i] for i in dense]
            restored = feedback.add(pick(dense, gradients), feedback_ids)
            gradients = [list(local) for local in gradients]
            for local, tensors in zip(gradients, restored, strict=True):
                for i, tensor in zip(dense, tensors, strict=True):
                    local[i] = tensor

        def in_float(workers):
            if self.error_feedback:
                feedback.clear(feedback_ids)
            return _FLOAT.average(
                gradients, paths, ids, step, workers, f"{name}.float"
            )

        def in_three_levels(workers):
            return self._average(
                gradients,
                paths,
                ids,
                ternary,
                step,
                workers,
                name,
                statistics,
                feedback,
            )

        if self.float_every is None and not self.warmup_steps:
            return in_three_levels(workers)
        return _either(
            self.travels_in_float(step),
            in_float,
            in_three_levels,
            workers,
            gradients[0],
        )

    def travels_in_float(self, step):
        """Whether exchange number `step` is one in float; bool tensor."""
        in_float = step < self.warmup_steps
        if self.float_every is not None:
            period, length = self.float_every
            in_float |= step % period >= period - length
        return in_float

    def _average(
        self,
        gradients,
        paths,
        ids,
        ternary,
        step,
        workers,
        name,
        statistics,
        feedback,
    ):
        """Averages those at the positions `ternary` in three levels."""
        chosen = set(ternary)
        floats = [i for i in range(len(paths)) if i not in chosen]
        rows = [i for i in ternary if sparse.is_sparse(gradients[0][i])]
        dense = [i for i in ternary if i not in set(rows)]
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
        if not ternary:
            return [averages[i] for i in range(len(paths))]

        # Rows of one index are one row from here on.
        slices = [
            [sparse.merge_duplicates(s) for s in local]
            for local in pick(rows, gradients)
        ]
        row_values = [[s.values for s in local] for local in slices]
        tensors = pick(dense, gradients)
        own, num_dense = self._scalers(tensors, row_values)
        plan = self._plan(
            [tensor.shape.num_elements() for tensor in tensors[0]],
            workers.size * len(gradients),
        )
        scalers = _share(own, tensors, row_values, plan, workers, name)
        clip_levels = (
            own if self.clip_mode == "own" else [scalers] * len(gradients)
        )
        codec = functools.partial(
            Codec, step=step, workers=workers, seed=self.seed
        )
        if dense:
            dense_ids = [ids[i] for i in dense]
            levels = [level[:num_dense] for level in clip_levels]
            shared = scalers[:num_dense]
            bucket_size = self.bucket_size or 0
            if self.error_feedback:
                feedback.keep(tensors, dense_ids, levels, shared, bucket_size)
            dense_codec = codec(
                tensors, dense_ids, levels, shared, bucket_size=bucket_size
            )
            averaged = plan.average(dense_codec, workers, name)
            dense_codec.count(statistics)
            averages |= zip(dense, averaged, strict=True)
        if rows:
            levels = [level[num_dense:] for level in clip_levels]
            shared = scalers[num_dense:]
            rows_codec = codec(
                row_values,
                [ids[i] for i in rows],
                levels,
                shared,
                bucket_size=0,
            )
            averaged = average_rows(
                slices, shared, rows_codec.encode, workers, name
            )
            rows_codec.count(statistics)
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
            if any(part.dtype == tf.float64 for part in parts):
                parts = [tf.cast(part, tf.float64) for part in parts]
            own.append(tf.concat(parts, axis=0))
        return own, num_dense

    def _plan(self, sizes, num_workers) -> wire.Plan:
        """How dense gradients of these sizes travel."""
        if any(size is None for size in sizes):
            unknown = "allreduce" if self.exchange == "auto" else self.exchange
            return wire.Plan(unknown, self.parts or 1)
        exchange = self.exchange
        if exchange == "auto":
            exchange = wire.choose(sizes, num_workers, self.link)
        num_parts = self.parts or wire.choose_parts(sizes, self.link)
        return wire.Plan(exchange, num_parts if num_workers > 1 else 1)

    def bits_sent(self, sizes, paths, num_workers):
        """See `Compression.bits_sent`."""
        ternary, bits = [], 0.0
        for size, path in zip(sizes, paths, strict=True):
            if size < self.min_size or self._is_exempt(path):
                bits += ring_bits(32.0 * size, num_workers)
            else:
                ternary.append(size)
        if not ternary:
            return bits
        scalers = _CHECK_SIZE + sum(
            -(-size // self.bucket_size) if self.bucket_size else 1
            for size in ternary
        )
        return (
            bits
            + ring_bits(32.0 * scalers, num_workers)
            + self._plan(ternary, num_workers).bits(ternary, num_workers)
        )

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
            "float_every": self.float_every and list(self.float_every),
            "warmup_steps": self.warmup_steps,
            "error_feedback": self.error_feedback,
            "seed": self.seed,
            "link": dataclasses.asdict(self.link),
            "parts": self.parts,
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


def _share(own, tensors, rows, plan, workers, name):
    """The maximum of scalers over workers, once all agree on the gradients.

    A digest of sizes and plan, and its negative, travel with the scalers: where
    the two maxima do not cancel, digests differ, and every worker stops,
    instead of some waiting for ever.
    """
    kinds = [(g.dtype.name, str(g.shape)) for g in tensors[0] + rows[0]]
    number = zlib.crc32(repr(([dtype for dtype, _ in kinds], plan)).encode())
    digest = tf.constant(number, tf.int64)
    for g in tensors[0]:
        digest = digest * 31 + tf.size(g, tf.int64)
    for g in rows[0]:  # as many of them as there are
        row = tf.reduce_prod(tf.shape(g, tf.int64)[1:])
        digest = digest * 31 + row
    digest = tf.cast(digest % 2**24, own[0].dtype)  # exact in float32
    check = tf.stack([digest, -digest])
    local = functools.reduce(tf.maximum, own)
    shared = workers.max(tf.concat([local, check], axis=0), f"{name}.scalers")
    same = tf.debugging.assert_equal(
        shared[-2],
        -shared[-1],
        message="Gradients differ between workers in number, shape or dtype. "
        f"Those of worker {workers.rank}: {kinds}, sent by {plan}",
    )
    with tf.control_dependencies([] if same is None else [same]):
        return tf.identity(shared[:-_CHECK_SIZE])


def _either(condition, in_float, in_three_levels, workers, like):
    """One of two ways to average, chosen while training.

    The condition is the same on every worker. Each branch waits for its own
    collectives, so that they are never pruned.
    """

    def run(average):
        def branch():
            group = workers.branch()
            averaged = tf.nest.map_structure(
                tf.identity, average(group), expand_composites=True
            )
            return averaged, group.zero()

        return branch

    averages, zero = tf.cond(condition, run(in_float), run(in_three_levels))
    workers.join(zero)
    for average, gradient in zip(averages, like, strict=True):
        if not sparse.is_sparse(gradient):
            average.set_shape(gradient.shape)
    return list(averages)


def _to_link(link) -> Link:
    if link is None:
        return Link()
    if isinstance(link, dict):
        return Link(**link)
    if not isinstance(link, Link):
        raise TypeError(
            "Invalid type for argument link. Expected tg.Link(...) or None. "
            f"Received: link={link!r}"
        )
    return link


def _to_period(float_every):
    """(period, length), or None."""
    if float_every is None:
        return None
    pair = float_every if isinstance(float_every, tuple | list) else None
    period, length = pair if pair and len(pair) == 2 else (float_every, 1)
    checks.integer("float_every", period, 1)
    checks.integer("float_every", length, 1)
    if length > period:
        raise ValueError(
            "Invalid value for argument float_every. Expected (period, "
            f"length) with length <= period. Received: {float_every!r}"
        )
    return period, length
