"""Ternary codec over lists of gradients: C++ ops, or plain TensorFlow.

Three steps, in this order, make an exchange:

    own = ternary_scalers(gradients, clip_factor, bucket_size)
    scalers = <maximum of own over workers>
    payload, _ = ternary_encode(gradients, own, scalers, step, ...)
    total = <sum of payload over workers>
    averages = ternary_decode(total, scalers, shapes, dtypes, ...)

Or with trits, five to a byte, which are gathered instead of added:

    payload, _ = ternary_encode(..., trits=True)
    parts = <payloads of all workers, one after the other>
    averages = ternary_decode(parts, ..., layout="gathered")

Or each worker adds the trits of its shard of the payload:

    parts = <my shard of the payloads of all workers, one after the other>
    sums = ternary_sum_trits(parts, num_workers)
    words = <sums of all workers, one after the other>
    averages = ternary_decode(words, ..., layout="sum_of_trits")

With `num_parts`, each of these is done part by part, so that one part is sent
while others are encoded and decoded.

Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NIPS 2017.
"""

import tensorflow as tf

from custom_ops import library, ternary_fallback


def ternary_scalers(
    gradients: list[tf.Tensor], clip_factor: float | None, bucket_size: int
) -> tf.Tensor:
    """Scalers `s = min(max|g|, clip_factor * sigma)`, one per bucket.

    `sigma` is the standard deviation of the whole gradient about its mean.
    Gradients of fewer than 32 elements, or with sigma < max|g| / 2^20, are not
    clipped. A bucket with a non-finite element has the scaler +inf.

    Args:
        gradients: At least one dense tensor: float16, bfloat16, float32 or
            float64, any shape, also empty.
        clip_factor: > 0, in units of sigma; None turns clipping off.
        bucket_size: Elements that share a scaler; 0: one scaler a gradient.

    Returns:
        `[buckets]` tensor, all gradients' scalers in turn; float64 if any
        gradient is, else float32.
    """
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    arguments = dict(
        gradients=gradients,
        clip_factor=clip_factor or 0.0,
        bucket_size=bucket_size,
        Tscaler=scaler_dtype(gradients),
    )
    ops = library.ops()
    if ops is None:
        return ternary_fallback.ternary_scalers(**arguments)
    return ops.tern_grad_ssl_ternary_scalers(**arguments)


def ternary_encode(
    gradients: list[tf.Tensor],
    clip_levels: tf.Tensor,
    scalers: tf.Tensor,
    step: tf.Tensor,
    *,
    tensor_ids: list[int],
    bucket_size: int,
    num_workers: int,
    rank: int,
    seed: int,
    trits: bool = False,
    part: int = 0,
    num_parts: int = 1,
    counts: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Ternarizes gradients and packs them into one payload.

    An element becomes sign(g) with probability min(|g|, clip level) / scaler,
    else 0; the digit sign + 1 is written in base 2 * num_workers + 1, or in
    base 3 with `trits`.

    Args:
        gradients: As for `ternary_scalers`.
        clip_levels: `[buckets]`, this worker's own scalers, or `scalers`.
        scalers: `[buckets]`, shared by all workers.
        step: int64 scalar. With seed, rank and tensor id it keys the random
            stream, so no two (step, rank, tensor) may coincide.
        tensor_ids: One number in [0, 2^24) a gradient.
        bucket_size: As for `ternary_scalers`.
        num_workers: Payloads that will be added, this one included.
        rank: Of this worker, in [0, 2^24).
        seed: int64.
        trits: Five digits of base 3 in a byte, instead of as many of base
            2 * num_workers + 1 as an int64 holds.
        part: In [0, num_parts): see `part_sizes`.
        num_parts: Parts into which all gradients are cut.
        counts: int64 `[2, gradients]` of the parts before, to be added to.

    Returns:
        payload: int64 `[words + 1]`; payloads are added with a plain sum. With
            `trits` uint8 `[32 * groups]`, a group holding 160 elements.
        counts: int64 `[2, gradients]`: elements sent as -1 or +1; elements
            above their clip level.
    """
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    arguments = dict(
        gradients=gradients,
        clip_levels=clip_levels,
        scalers=scalers,
        step=step,
        tensor_ids=tensor_ids,
        bucket_size=bucket_size,
        num_workers=num_workers,
        rank=rank,
        seed=seed,
        Tpayload=tf.uint8 if trits else tf.int64,
        part=part,
        num_parts=num_parts,
        counts=(
            tf.zeros([2, len(gradients)], tf.int64)
            if counts is None
            else counts
        ),
    )
    ops = library.ops()
    if ops is None:
        return ternary_fallback.ternary_encode(**arguments)
    return tuple(ops.tern_grad_ssl_ternary_encode(**arguments))


def ternary_sum_trits(parts: tf.Tensor, num_workers: int) -> tf.Tensor:
    """Adds trits of all workers into digits of base 2 * num_workers + 1.

    Args:
        parts: uint8 `[num_workers * bytes]`, whole groups of 32 bytes, one
            worker's after the other's.
        num_workers: N.

    Returns:
        int64 `[words]`: digits of the sums, 160 a group, without gaps.
    """
    ops = library.ops()
    if ops is None:
        return ternary_fallback.ternary_sum_trits(parts, num_workers)
    return ops.tern_grad_ssl_ternary_sum_trits(parts, num_workers=num_workers)


def ternary_decode(
    payload: tf.Tensor,
    scalers: tf.Tensor,
    shapes: list[tf.Tensor],
    dtypes: list[tf.DType],
    *,
    bucket_size: int,
    num_workers: int,
    layout: str = "sum",
    part: int = 0,
    num_parts: int = 1,
    before: list[tf.Tensor] | None = None,
) -> list[tf.Tensor]:
    """The averaged gradients `sum of signs * (scaler / num_workers)`.

    Args:
        payload: int64 `[words + 1]`, the sum over all workers; or as `layout`
            says.
        scalers: `[buckets]`, shared by all workers.
        shapes: int64 `[rank]` tensors, one a gradient.
        dtypes: One a gradient.
        bucket_size: As for `ternary_scalers`.
        num_workers: Number of payloads added.
        layout: "sum"; "gathered": the payloads of trits, one after the other;
            "sum_of_trits": what `ternary_sum_trits` makes of them, in the order
            of the elements.
        part: What the payload is of, in [0, num_parts).
        num_parts: As for `ternary_encode`.
        before: The result of the parts before, which the new one takes over,
            memory and all where nobody else uses it. None: the elements of
            other parts are undefined.

    Returns:
        One tensor a gradient, the same bits on every worker. NaN where the
        scaler is +inf.

    Raises:
        tf.errors.InvalidArgumentError: The guard word is not num_workers: the
            payload is no plain sum over that many workers. Or its length
            is not that of num_workers payloads.
    """
    arguments = dict(
        payload=payload,
        scalers=scalers,
        shapes=[tf.cast(s, tf.int64) for s in shapes],
        T=dtypes,
        bucket_size=bucket_size,
        num_workers=num_workers,
        layout=layout,
        part=part,
        num_parts=num_parts,
        before=before or [],
    )
    ops = library.ops()
    if ops is None:
        return ternary_fallback.ternary_decode(**arguments)
    return list(ops.tern_grad_ssl_ternary_decode(**arguments))


def scaler_dtype(gradients: list[tf.Tensor]) -> tf.DType:
    """float64 if any gradient is, else float32."""
    if any(g.dtype == tf.float64 for g in gradients):
        return tf.float64
    return tf.float32


def digits_per_word(num_workers: int) -> int:
    """Largest D with (2 * num_workers + 1)^D <= 2^64.

    >>> [digits_per_word(n) for n in (1, 2, 4, 8, 64)]
    [40, 27, 20, 15, 9]
    """
    digits, values = 0, 1
    while values * (2 * num_workers + 1) <= 2**64:
        values *= 2 * num_workers + 1
        digits += 1
    return digits


def part_sizes(sizes: list[int], part: int, num_parts: int) -> list[int]:
    """How many elements of each gradient belong to one of num_parts parts.

    Parts are consecutive and differ by at most one group of 160 elements, when
    gradients stand in turn, each padded to whole groups.

    >>> [part_sizes([500, 100], part, 2) for part in range(2)]
    [[320, 0], [180, 100]]
    """
    groups = [num_groups(size) for size in sizes]
    begin, end = (sum(groups) * p // num_parts for p in (part, part + 1))
    inside, first = [], 0
    for size, count in zip(sizes, groups, strict=True):
        low, high = (
            min(max(edge - first, 0) * GROUP, size) for edge in (begin, end)
        )
        inside.append(high - low)
        first += count
    return inside


def num_words(size: int, num_workers: int) -> int:
    """int64 words of one gradient of `size` elements (without the guard)."""
    return -(-size // digits_per_word(num_workers))


# Elements and bytes of a group of trits.
GROUP = 160
GROUP_BYTES = 32


def num_groups(size: int) -> int:
    """Groups of trits of one gradient of `size` elements."""
    return -(-size // GROUP)
