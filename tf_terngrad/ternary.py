"""TernGrad's equations in plain TensorFlow.

The reference that the kernels are tested against, and the shortest way to
read what they do.

Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NIPS 2017, section 3.
"""

import tensorflow as tf

# Gradients of fewer elements are not clipped: their sigma says little.
MIN_CLIPPED_SIZE = 32
# Nor are nearly constant ones: a bias of one element would never train.
SMALLEST_SPREAD = 2.0**-20


def clip(gradient: tf.Tensor, clip_factor: float | None) -> tf.Tensor:
    """Clips a gradient at `clip_factor` standard deviations.

    `f(g) = sign(g) * min(|g|, c * sigma)`, with sigma the standard deviation
    of the whole gradient about its mean.

    Departure: gradients of fewer than 32 elements, or with
    sigma < max|g| / 2^20, stay as they are.

    Args:
        gradient: Any shape.
        clip_factor: c > 0; None: no clipping. The paper uses 2.5.

    Returns:
        Tensor of the same shape and dtype.

    >>> g = tf.constant([1.0] * 31 + [-1.0] * 32 + [100.0])
    >>> float(tf.reduce_max(clip(g, 2.5)))  # 2.5 sigma
    31.10...

    Reference: TernGrad, section 3.3, equation 11.
    """
    if clip_factor is None or gradient.shape.num_elements() == 0:
        return gradient
    wide = tf.cast(gradient, tf.float64)
    sigma = tf.math.reduce_std(wide)
    level = clip_factor * sigma
    clips = (
        (tf.size(gradient) >= MIN_CLIPPED_SIZE)
        & (sigma >= tf.reduce_max(tf.abs(wide)) * SMALLEST_SPREAD)
        & tf.math.is_finite(sigma)
    )
    clipped = tf.clip_by_value(wide, -level, level)
    return tf.cast(tf.where(clips, clipped, wide), gradient.dtype)


def scaler(gradient: tf.Tensor, clip_factor: float | None = None) -> tf.Tensor:
    """The scaler of a gradient: `s = max|clip(g, clip_factor)|`.

    Args:
        gradient: Any shape.
        clip_factor: As for `clip`; None: no clipping.

    Returns:
        Scalar of the gradient's dtype; 0 for an empty gradient, +inf if any
        element is not finite.

    >>> float(scaler(tf.constant([0.5, -2.0])))
    2.0

    Reference: TernGrad, equation 2.
    """
    if gradient.shape.num_elements() == 0:
        return tf.zeros([], gradient.dtype)
    finite = tf.reduce_all(tf.math.is_finite(gradient))
    largest = tf.reduce_max(tf.abs(clip(gradient, clip_factor)))
    return tf.where(finite, largest, tf.cast(float("inf"), gradient.dtype))


def ternarize(
    gradient: tf.Tensor, scaler: tf.Tensor, seed: tuple[int, int]
) -> tf.Tensor:
    """Stochastic ternary levels times the scaler; unbiased for |g| <= s.

    `s * sign(g) * b`, `P(b = 1) = |g| / s`, so the expectation is g and the
    variance of an element s|g| - g^2. Elements above s always fire.

    Args:
        gradient: Any shape.
        scaler: s >= 0, scalar; 0 gives zeros, +inf gives NaN.
        seed: Two integers, of `tf.random.stateless_uniform`.

    Returns:
        Tensor of the same shape and dtype, elements in {-s, 0, +s}.

    >>> g = tf.constant([0.5, -1.0, 0.0])
    >>> ternarize(g, tf.constant(1.0), seed=(1, 2)).numpy().tolist()[1:]
    [-1.0, 0.0]

    Reference: TernGrad, equations 1 and 3.
    """
    wide = tf.cast(gradient, tf.float64)
    uniform = tf.random.stateless_uniform(
        tf.shape(gradient), seed, dtype=tf.float64
    )
    fires = uniform * tf.cast(scaler, tf.float64) < tf.abs(wide)
    signs = tf.where(fires, tf.sign(gradient), tf.zeros_like(gradient))
    return tf.where(
        tf.math.is_inf(scaler),
        tf.cast(float("nan"), gradient.dtype),
        scaler * signs,
    )
