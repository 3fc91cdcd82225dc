"""The ternary ops in plain TensorFlow: same signatures, same statistics.

Payload layout and decoded values are those of the C++ ops to the bit. Sigma is
summed in another order, and the random bits are TensorFlow's own, not Philox by
element, so the encoded signs differ.
"""

import numpy as np
import tensorflow as tf

# As in custom_ops/core/ternary.
_MIN_CLIPPED_SIZE = 32
_SMALLEST_SPREAD = 2.0**-20
_SMALLEST_SCALER = 2.0**-100
_GROUP = 160
_GROUP_BYTES = 32


def ternary_scalers(gradients, clip_factor, bucket_size, Tscaler):  # noqa: N803
    """See custom_ops.ternary_scalers."""
    clip_factor = float(np.float32(clip_factor))  # an attribute of the op
    scalers = []
    for gradient in gradients:
        flat = tf.cast(tf.reshape(gradient, [-1]), tf.float64)
        magnitudes = _in_buckets(tf.abs(flat), bucket_size)
        finite = tf.reduce_all(tf.math.is_finite(magnitudes), axis=1)
        largest = tf.reduce_max(magnitudes, axis=1)
        largest = tf.maximum(largest, 0.0)  # of an empty bucket: -inf
        scaler = largest
        if clip_factor > 0:
            scaler = tf.minimum(largest, _clip_level(flat, clip_factor))
        if gradient.dtype != tf.float64:
            scaler = _round_up_to_float(scaler)
        infinity = tf.constant(float("inf"), tf.float64)
        scalers.append(tf.where(finite, scaler, infinity))
    return tf.cast(tf.concat(scalers, axis=0), Tscaler)


def ternary_encode(
    gradients,
    clip_levels,
    scalers,
    step,
    tensor_ids,
    bucket_size,
    num_workers,
    rank,
    seed,
    Tpayload,  # noqa: N803
    part,
    num_parts,
    counts,
):
    """See custom_ops.ternary_encode."""
    words, num_nonzero, num_clipped = [], [], []
    first = 0
    cuts = _cut([tf.size(g, tf.int64) for g in gradients], part, num_parts)
    for gradient, tensor_id, (low, high) in zip(
        gradients, tensor_ids, cuts, strict=True
    ):
        flat = tf.cast(tf.reshape(gradient, [-1]), tf.float64)
        size = tf.size(flat, tf.int64)
        buckets = _num_buckets(size, bucket_size)
        clip_level = _per_element(clip_levels, first, size, bucket_size)
        scaler = _per_element(scalers, first, size, bucket_size)
        first += buckets
        clipped = tf.abs(flat) > clip_level
        magnitude = tf.where(clipped, clip_level, tf.abs(flat))
        # One stream per (seed, step, rank, tensor).
        stream = tf.random.experimental.stateless_fold_in(
            tf.stack([tf.constant(seed, tf.int64), step]),
            tf.constant(rank * 2**24 + tensor_id, tf.int64),
        )
        uniform = tf.random.stateless_uniform(
            tf.shape(flat), stream, 0, 2**32, tf.int64
        )
        usable = (scaler >= _SMALLEST_SCALER) & tf.math.is_finite(scaler)
        fires = usable & (
            tf.cast(uniform, tf.float64) * scaler < magnitude * 2.0**32
        )
        digit = tf.where(
            fires, tf.cast(tf.sign(flat), tf.int64) + 1, tf.ones_like(uniform)
        )
        digit, fires, clipped = (
            t[low:high] for t in (digit, fires, clipped & usable)
        )
        if Tpayload == tf.uint8:
            words.append(_pack_trits(digit))
        else:
            words.append(_pack_words(digit, num_workers))
        num_nonzero.append(tf.math.count_nonzero(fires))
        num_clipped.append(tf.math.count_nonzero(clipped))
    if Tpayload == tf.int64:
        words.append(tf.ones([1], tf.int64))  # the guard
    return (
        tf.concat(words, axis=0),
        counts + tf.stack([num_nonzero, num_clipped]),
    )


def ternary_sum_trits(parts, num_workers):
    """See custom_ops.ternary_sum_trits."""
    sums = _unpack_trits(tf.reshape(parts, [num_workers, -1]))
    return _pack_words(tf.reduce_sum(sums, axis=0), num_workers)


def ternary_decode(
    payload,
    scalers,
    shapes,
    T,  # noqa: N803
    bucket_size,
    num_workers,
    layout,
    part,
    num_parts,
    before,
):
    """See custom_ops.ternary_decode."""
    sizes = [tf.reduce_prod(shape) for shape in shapes]
    cuts = _cut(sizes, part, num_parts)
    if layout == "gathered":
        groups = tf.add_n([_num_groups(high - low) for low, high in cuts])
        check = tf.debugging.assert_equal(
            tf.size(payload, tf.int64),
            num_workers * groups * _GROUP_BYTES,
            message="Invalid length of `payload`.",
        )
        with tf.control_dependencies([] if check is None else [check]):
            parts = tf.reshape(payload, [num_workers, -1])
        sums = tf.reduce_sum(_unpack_trits(parts), axis=0)
        alignment = _GROUP
    elif layout == "sum_of_trits":
        sums = _unpack_words(payload, num_workers)
        alignment = _GROUP
    else:
        check = tf.debugging.assert_equal(
            payload[-1],
            tf.constant(num_workers, tf.int64),
            message="The payload is not the sum over all workers: its guard "
            f"word is not {num_workers}.",
        )
        with tf.control_dependencies([] if check is None else [check]):
            sums = _unpack_words(payload[:-1], num_workers)
        alignment = len(_powers(num_workers))
    sums -= num_workers
    gradients = []
    first, first_bucket = 0, 0
    for i, (shape, size, dtype) in enumerate(
        zip(shapes, sizes, T, strict=True)
    ):
        low, high = cuts[i]
        of_tensor = sums[first : first + high - low]
        first += -(-(high - low) // alignment) * alignment
        scaler = _per_element(scalers, first_bucket, size, bucket_size)
        scaler = scaler[low:high]
        first_bucket += _num_buckets(size, bucket_size)
        ratio = scaler / num_workers
        wide = tf.float64 if dtype == tf.float64 else tf.float32
        ratio = tf.where(
            tf.math.is_inf(scaler),
            tf.constant(float("nan"), wide),
            tf.cast(ratio, wide),
        )
        gradient = tf.cast(tf.cast(of_tensor, wide) * ratio, dtype)
        rest = (
            tf.reshape(before[i], [-1]) if before else tf.zeros([size], dtype)
        )
        gradient = tf.concat([rest[:low], gradient, rest[high:]], axis=0)
        gradients.append(tf.reshape(gradient, shape))
    return gradients


def _num_groups(size):
    return (size + _GROUP - 1) // _GROUP


def _cut(sizes, part, num_parts):
    """The elements [low, high) of each tensor in a part."""
    groups = [_num_groups(size) for size in sizes]
    total = tf.add_n(groups)
    begin, end = (total * p // num_parts for p in (part, part + 1))
    cuts, first = [], tf.constant(0, tf.int64)
    for size, count in zip(sizes, groups, strict=True):
        cuts.append(
            [
                tf.clip_by_value((edge - first) * _GROUP, 0, size)
                for edge in (begin, end)
            ]
        )
        first += count
    return cuts


def _powers(num_workers):
    """The weight of each digit of a word."""
    base = 2 * num_workers + 1
    powers = [1]
    while powers[-1] * base * base <= 2**64:
        powers.append(powers[-1] * base)
    return powers


def _pack_words(digits, num_workers):
    """int64 `[size]` digits of base 2N + 1 -> `[words]`."""
    powers = tf.constant(_powers(num_workers), tf.int64)
    digits = tf.pad(digits, [[0, -tf.size(digits) % tf.size(powers)]])
    return tf.reduce_sum(
        tf.reshape(digits, [-1, powers.shape[0]]) * powers, axis=1
    )


def _unpack_words(words, num_workers):
    """`[words]` -> their digits, int64 `[words * digits]`."""
    powers = tf.constant(_powers(num_workers), tf.uint64)
    base = tf.constant(2 * num_workers + 1, tf.uint64)
    digits = (tf.bitcast(words, tf.uint64)[:, None] // powers) % base
    return tf.reshape(tf.cast(digits, tf.int64), [-1])


def _pack_trits(digits):
    """int64 `[size]` digits of base 3 -> uint8 `[32 * groups]`."""
    digits = tf.pad(digits, [[0, -tf.size(digits) % _GROUP]], constant_values=1)
    parts = tf.reshape(digits, [-1, 5, _GROUP_BYTES])
    weights = tf.constant([1, 3, 9, 27, 81], tf.int64)
    codes = tf.reduce_sum(parts * weights[:, None], axis=1)
    return tf.cast(tf.reshape(codes, [-1]), tf.uint8)


def _unpack_trits(parts):
    """uint8 `[workers, 32 * groups]` -> int64 `[workers, 160 * groups]`."""
    codes = tf.cast(tf.reshape(parts, [-1, 1, _GROUP_BYTES]), tf.int64)
    weights = tf.constant([1, 3, 9, 27, 81], tf.int64)
    digits = codes // weights[:, None] % 3
    return tf.reshape(digits, [tf.shape(parts)[0], -1])


def _num_buckets(size, bucket_size):
    if bucket_size == 0:
        return tf.constant(1, tf.int64)
    return (size + bucket_size - 1) // bucket_size


def _in_buckets(flat, bucket_size):
    """`[size]` -> `[buckets, bucket_size]`, the last one padded with 0."""
    if bucket_size == 0:
        return flat[None, :]
    padded = tf.pad(flat, [[0, -tf.size(flat) % bucket_size]])
    return tf.reshape(padded, [-1, bucket_size])


def _per_element(values, first, size, bucket_size):
    """Each element's entry of a `[buckets]` vector, as float64 `[size]`."""
    values = tf.cast(values, tf.float64)
    if bucket_size == 0:
        return tf.fill([size], values[first])
    bucket = tf.range(size) // bucket_size
    return tf.gather(values, first + bucket)


def _clip_level(flat, clip_factor):
    """Clip level, clip_factor * sigma; +inf where there is no clipping."""
    size = tf.cast(tf.size(flat), tf.float64)
    mean = tf.reduce_sum(flat) / size
    variance = tf.reduce_sum(flat * flat) / size - mean * mean
    sigma = tf.sqrt(tf.maximum(variance, 0.0))
    clips = (
        (size >= _MIN_CLIPPED_SIZE)
        & (sigma >= tf.reduce_max(tf.abs(flat)) * _SMALLEST_SPREAD)
        & tf.math.is_finite(sigma)
    )
    return tf.where(
        clips, clip_factor * sigma, tf.constant(float("inf"), tf.float64)
    )


def _round_up_to_float(values):
    """float64 -> the next float32 at or above, still as float64."""
    nearest = tf.cast(values, tf.float32)
    upper = tf.math.nextafter(nearest, tf.constant(float("inf"), tf.float32))
    below = tf.cast(nearest, tf.float64) < values
    return tf.cast(tf.where(below, upper, nearest), tf.float64)
