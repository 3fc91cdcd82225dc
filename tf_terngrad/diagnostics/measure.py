"""What clipping and ternarizing do to gradients, as pure functions.

A tensor's gradients come as a list of NumPy arrays, one a worker; the
expectation E over mini-batches is estimated by the mean over workers. All sums
are float64.

Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NIPS 2017, sections 3.2 and 3.3.
"""

import numpy as np
import tensorflow as tf

import custom_ops
from tf_terngrad import ternary

# Odd, so that 0 has a bin of its own around it.
NUM_BINS = 101
# Where the measured compression does without, clipping and buckets are
# measured at these.
CLIP_FACTOR = 2.5
BUCKET_SIZE = 1024
# The bounds of a record, in order; see `bounds`.
BOUNDS = (
    "standard",
    "one_scaler",
    "layer",
    "bucketed",
    "clipped",
    "clipped_bucketed",
)


def clip(gradient: np.ndarray, clip_factor: float | None) -> np.ndarray:
    """`tg.clip` in float64: `sign(g) * min(|g|, clip_factor * sigma)`.

    >>> clip(np.array([1.0, -3.0]), 2.5)  # below 32 elements: as it is
    array([ 1., -3.])
    """
    return ternary.clip(tf.constant(gradient, tf.float64), clip_factor).numpy()


def standard_bound(gradients: list[np.ndarray]) -> float:
    """`E ||g||^2`, which standard SGD asks to be bounded.

    >>> standard_bound([np.array([3.0, -1.0]), np.array([1.0, 1.0])])
    6.0

    Reference: TernGrad, section 3.2.
    """
    return float(np.mean([np.sum(_wide(g) ** 2) for g in gradients]))


def ternary_bound(
    gradients: list[np.ndarray], bucket_size: int | None = None
) -> float:
    """`E sum over buckets of ||g||_inf ||g||_1`, which TernGrad asks for.

    It is `E ||ternarize(g)||^2` with the scaler `||g||_inf` of each bucket,
    and never less than `standard_bound`: smaller buckets and clipped gradients
    close the gap.

    Args:
        gradients: One array a worker.
        bucket_size: Elements that share a scaler; None: the whole tensor.

    >>> g = [np.array([3.0, -1.0, 0.0, 1.0])]
    >>> ternary_bound(g), ternary_bound(g, bucket_size=2)
    (15.0, 13.0)

    Reference: TernGrad, assumption 3.
    """
    return float(np.mean([_ternary_bound(g, bucket_size) for g in gradients]))


def bounds(
    gradients: list[list[np.ndarray]],
    clip_factor: float = CLIP_FACTOR,
    bucket_size: int = BUCKET_SIZE,
) -> np.ndarray:
    """What each tensor adds to the bounds, float64 `[len(BOUNDS), tensors]`.

    - `standard`: E||g||^2
    - `one_scaler`: E(||g||_inf ||g||_1), g being all tensors together
    - `layer`: one scaler a tensor, no clipping
    - `bucketed`: one scaler a bucket, no clipping
    - `clipped`: one scaler a tensor, of the clipped gradient
    - `clipped_bucketed`: one scaler a bucket, of the clipped gradient

    Sums over tensors are the bounds of the whole gradient.

    Args:
        gradients: `[workers][tensors]`.
        clip_factor: In units of the tensor's standard deviation, > 0.
        bucket_size: In elements, >= 1.

    Reference: TernGrad, sections 3.2 and 3.3: layer-wise ternarizing and
    clipping narrow the gap between the two bounds.
    """
    largest = [max(_largest(g) for g in local) for local in gradients]
    columns = []
    for tensors in zip(*gradients, strict=True):
        clipped = [clip(g, clip_factor) for g in tensors]
        one_scaler = np.mean(
            [
                m * np.sum(np.abs(_wide(g)))
                for m, g in zip(largest, tensors, strict=True)
            ]
        )
        columns.append(
            [
                standard_bound(tensors),
                one_scaler,
                ternary_bound(tensors),
                ternary_bound(tensors, bucket_size),
                ternary_bound(clipped),
                ternary_bound(clipped, bucket_size),
            ]
        )
    return np.array(columns, np.float64).T


def inner_products(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`(||a||^2, ||b||^2, <a, b>)`; over tensors, they add up."""
    a, b = _wide(before), _wide(after)
    return np.array([np.sum(a * a), np.sum(b * b), np.sum(a * b)])


def length_ratio(products: np.ndarray) -> float:
    """`||b|| / ||a||` from `inner_products`; 1 for two zeros.

    >>> length_ratio(inner_products(np.array([4.0, 0]), np.array([3.0, 0])))
    0.75
    """
    before, after, _ = products
    if before == 0.0 and after == 0.0:
        return 1.0
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.float64(after) / before))


def angle(products: np.ndarray) -> float:
    """Angle between a and b in degrees, [0, 180]; 0 if one is zero.

    >>> angle(inner_products(np.array([1.0, 0]), np.array([1.0, 1.0])))
    45.0...
    """
    before, after, between = products
    norms = np.sqrt(before * after)
    if norms == 0.0:
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.degrees(np.arccos(np.clip(between / norms, -1, 1))))


def histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Counts of the finite values in bins of equal width over [-limit, limit].

    Returns:
        int64 `[NUM_BINS]` counts, and limit = max|v|, or 1 if that is 0.
    """
    values = _wide(values)
    values = values[np.isfinite(values)]
    limit = _largest(values) or 1.0
    # Scaled to [-1, 1]: numbers near the smallest float have no fine bins.
    counts, _ = np.histogram(values / limit, bins=NUM_BINS, range=(-1.0, 1.0))
    return counts, limit


def ternary_levels(
    gradients: list[np.ndarray], compression, step: int, tensor_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """The levels that workers would send for a tensor, and their scalers.

    Those of `tg.exchange` with `LocalWorkers`, before they are added: the same
    random streams, the same bits.

    Args:
        gradients: One array a worker.
        compression: `tg.TernGrad`; `min_size` and `exempt` are left out of
            account.
        step: Number of the exchange.
        tensor_id: Position of the variable.

    Returns:
        Integers in {-1, 0, 1}, `[workers, size]`, 0 where a scaler is not
        finite; scalers shared by the workers, `[buckets]`.
    """
    bucket_size = compression.bucket_size or 0
    tensors = [tf.reshape(tf.constant(g), [-1]) for g in gradients]
    own = [
        custom_ops.ternary_scalers([g], compression.clip_factor, bucket_size)
        for g in tensors
    ]
    shared = tf.reduce_max(tf.stack(own), axis=0)
    levels = []
    for rank, gradient in enumerate(tensors):
        clips_at = own[rank] if compression.clip_mode == "own" else shared
        payload, _ = custom_ops.ternary_encode(
            [gradient],
            clips_at,
            shared,
            tf.constant(step, tf.int64),
            tensor_ids=[tensor_id],
            bucket_size=bucket_size,
            num_workers=1,  # nothing is added
            rank=rank,
            seed=compression.seed,
        )
        [level] = custom_ops.ternary_decode(
            payload,
            tf.ones_like(shared),
            [tf.shape(gradient, tf.int64)],
            [tf.float32],
            bucket_size=bucket_size,
            num_workers=1,
        )
        levels.append(level.numpy().astype(np.int32))
    return np.stack(levels), shared.numpy()


def ternary_values(
    levels: np.ndarray,
    scalers: np.ndarray,
    num_workers: int,
    bucket_size: int | None = None,
) -> np.ndarray:
    """`level * (s / N)`: what sums of levels stand for; NaN if s is +inf.

    Args:
        levels: Integers in [-N, N], `[size]`.
        scalers: `[buckets]`.
        num_workers: N, the number of levels added.
        bucket_size: Elements that share a scaler; None: all.
    """
    ratios = scalers / scalers.dtype.type(num_workers)
    ratios = np.where(np.isfinite(scalers), ratios, np.nan)
    buckets = np.arange(levels.size) // (bucket_size or max(1, levels.size))
    return levels.astype(scalers.dtype) * ratios.astype(scalers.dtype)[buckets]


def level_counts(levels: np.ndarray, num_workers: int) -> np.ndarray:
    """How often each of the 2N + 1 levels -N..N occurs, int64 `[2N + 1]`.

    >>> level_counts(np.array([-2, 0, 0, 1]), num_workers=2).tolist()
    [1, 0, 2, 1, 0]
    """
    return np.bincount(
        np.ravel(levels) + num_workers, minlength=2 * num_workers + 1
    )


def _wide(values) -> np.ndarray:
    return np.ravel(values).astype(np.float64)


def _largest(values) -> float:
    return float(np.max(np.abs(_wide(values)), initial=0.0))


def _ternary_bound(gradient, bucket_size) -> float:
    magnitudes = np.abs(_wide(gradient))
    if not magnitudes.size:
        return 0.0
    starts = np.arange(0, magnitudes.size, bucket_size or magnitudes.size)
    return np.dot(
        np.maximum.reduceat(magnitudes, starts),
        np.add.reduceat(magnitudes, starts),
    )
