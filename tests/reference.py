"""NumPy truth of the ternary codec, written for reading, not for speed."""

import math

import numpy as np

MASK32 = np.uint64(0xFFFFFFFF)
TIE_KEY = int.from_bytes(b"ternary!", "big")
LANES = 16
BLOCK = 4096


def philox(counters, key):
    """Philox4x32-10: uint32 `[n, 4]` counters, 64-bit key -> `[n, 4]`."""
    c = [counters[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c[0]
        p1 = np.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & MASK32,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & MASK32,
        ]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def counters(indices, step, rank, tensor):
    """Block or element numbers -> uint32 `[n, 4]` counters."""
    indices = np.asarray(indices, np.uint64)
    result = np.empty([len(indices), 4], np.uint32)
    result[:, 0] = indices & MASK32
    result[:, 1] = (indices >> np.uint64(32)).astype(np.uint32) | np.uint32(
        (rank << 8) & 0xFFFFFFFF
    )
    result[:, 2] = tensor | (step & 0xFF) << 24
    result[:, 3] = step >> 8
    return result


def uniform32(size, seed, step, rank, tensor):
    """The 32 random bits of each element, as int64."""
    key = seed % 2**64
    blocks = philox(
        counters(np.arange(-(-size // 16)), step, rank, tensor), key
    )
    first = blocks.astype("<u4").view(np.uint8).reshape(-1)[:size]
    ties = philox(counters(np.arange(size), step, rank, tensor), key ^ TIE_KEY)
    return first.astype(np.int64) << 24 | ties[:, 0].astype(np.int64) >> 8


def num_buckets(size, bucket_size):
    return 1 if bucket_size == 0 else -(-size // bucket_size)


def buckets(flat, bucket_size):
    """The buckets of a flat tensor, as slices."""
    if bucket_size == 0:
        return [slice(0, flat.size)]
    return [slice(i, i + bucket_size) for i in range(0, flat.size, bucket_size)]


def sigma(flat):
    """Standard deviation, summed in blocks of 4096 elements over 16 lanes."""
    total, total_squares = 0.0, 0.0
    for first in range(0, flat.size, BLOCK):
        block = flat[first : first + BLOCK].astype(np.float64)
        lanes = np.zeros([2, LANES])
        for i in range(0, block.size, LANES):
            part = block[i : i + LANES]
            lanes[0, : part.size] += part
            lanes[1, : part.size] += part * part
        sums = [0.0, 0.0]
        for lane in range(LANES):
            sums = [sums[0] + lanes[0, lane], sums[1] + lanes[1, lane]]
        total += sums[0]
        total_squares += sums[1]
    mean = total / flat.size
    return math.sqrt(max(total_squares / flat.size - mean * mean, 0.0))


def scalers(gradient, clip_factor, bucket_size):
    """Scalers of one gradient, float64 `[buckets]`."""
    flat = gradient.reshape(-1)
    largest = np.array(
        [
            np.max(np.abs(flat[b].astype(np.float64)), initial=0.0)
            for b in buckets(flat, bucket_size)
        ]
    )
    finite = np.isfinite(largest)
    largest[~finite] = np.inf
    result = largest.copy()
    if clip_factor and flat.size >= 32 and finite.all():
        spread = sigma(flat)
        if spread >= largest.max() * 2.0**-20:
            result = np.minimum(largest, clip_factor * spread)
    if gradient.dtype != np.float64:
        result = np.array([round_up_to_float(s) for s in result])
    return result


def round_up_to_float(value):
    nearest = np.float32(value)
    if float(nearest) < value:
        nearest = np.nextafter(nearest, np.float32(np.inf))
    return float(nearest)


def levels(gradient, clip_levels, scalers, bucket_size, **stream):
    """Signs that are sent of one gradient, int64 `[size]`.

    Exact in rational arithmetic for float32: u * s < |g| * 2^32.
    """
    flat = gradient.reshape(-1).astype(np.float64)
    uniform = uniform32(flat.size, **stream)
    signs = np.zeros(flat.size, np.int64)
    for i, part in enumerate(buckets(flat, bucket_size)):
        scaler, clip_level = float(scalers[i]), float(clip_levels[i])
        if not 2.0**-100 <= scaler < np.inf:
            continue
        for j in range(part.start, min(part.stop, flat.size)):
            magnitude = min(abs(flat[j]), clip_level)
            if fires(int(uniform[j]), scaler, magnitude):
                signs[j] = -1 if flat[j] < 0 else 1
    return signs


def fires(uniform, scaler, magnitude):
    """Whether uniform * scaler < magnitude * 2^32, in exact integers."""
    s, s_denominator = scaler.as_integer_ratio()
    m, m_denominator = magnitude.as_integer_ratio()
    return uniform * s * m_denominator < m * 2**32 * s_denominator


def digits_per_word(num_workers):
    digits = 0
    while (2 * num_workers + 1) ** (digits + 1) <= 2**64:
        digits += 1
    return digits


def pack(signs, num_workers):
    """Signs of one gradient -> int64 words."""
    base, digits = 2 * num_workers + 1, digits_per_word(num_workers)
    words = []
    for first in range(0, len(signs), digits):
        part = signs[first : first + digits]
        word = sum((int(s) + 1) * base**i for i, s in enumerate(part))
        words.append(word)
    return np.array(words, np.uint64).view(np.int64)


def unpack(words, size, num_workers):
    """Summed int64 words -> sums in [-N, N], int64 `[size]`."""
    base, digits = 2 * num_workers + 1, digits_per_word(num_workers)
    sums = []
    for word in np.asarray(words, np.int64).view(np.uint64):
        word = int(word)
        for _ in range(digits):
            sums.append(word % base - num_workers)
            word //= base
    return np.array(sums[:size], np.int64)


def pack_trits(signs):
    """Signs of one gradient -> uint8 bytes, groups of 32 for 160 elements."""
    codes = []
    for first in range(0, len(signs), 160):
        part = [int(s) + 1 for s in signs[first : first + 160]]
        part += [1] * (160 - len(part))
        for j in range(32):
            codes.append(sum(part[32 * k + j] * 3**k for k in range(5)))
    return np.array(codes, np.uint8)
