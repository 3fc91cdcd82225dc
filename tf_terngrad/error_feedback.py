"""Error feedback of what clipping removed."""

import keras
import numpy as np
import tensorflow as tf


class ErrorFeedback:
    """Keeps what clipping took from a gradient and adds it to the next one.

        g' = g + e;  sent: ternary of clip(g');  e <- g' - clip(g')

    Only what clipping removed comes back, so e stays bounded: ternarizing is
    unbiased, and feeding its error back as well would let e grow without end
    (s grows with max|g'|). Of dense ternary gradients only; state of this
    worker alone, one value an element.

    Args:
        variables: Those whose gradients are exchanged.
        num_local: Local workers of this process (`LocalWorkers`).

    Attributes:
        residuals: `[local workers][variables]`, the variable e of each.

    Departure: the paper clips without feedback.
    """

    def __init__(self, variables, num_local: int = 1):
        with tf.init_scope():
            self.residuals = [
                [
                    keras.Variable(np.zeros(v.shape), v.dtype, trainable=False)
                    for v in variables
                ]
                for _ in range(num_local)
            ]

    def add(self, gradients, ids) -> list:
        """G' = g + e for `[local workers][tensors]` gradients."""
        return [
            [
                g + tf.cast(residuals[i].value, g.dtype)
                for g, i in zip(local, ids, strict=True)
            ]
            for local, residuals in zip(gradients, self.residuals, strict=True)
        ]

    def keep(self, gradients, ids, clip_levels, scalers, bucket_size) -> None:
        """E <- g' - clip(g'); buckets that overflowed keep the e they had.

        Args:
            gradients: `[local workers][tensors]`, g'.
            ids: Position of each tensor's variable.
            clip_levels: `[local workers]` vectors, all tensors' buckets.
            scalers: The shared scalers, +inf where a worker overflowed.
            bucket_size: Elements that share a scaler; 0: a whole tensor.
        """
        for local, levels, residuals in zip(
            gradients, clip_levels, self.residuals, strict=True
        ):
            first = tf.constant(0, tf.int64)
            for gradient, i in zip(local, ids, strict=True):
                level, first_after = _per_element(
                    levels, first, gradient, bucket_size
                )
                scaler, _ = _per_element(scalers, first, gradient, bucket_size)
                first = first_after
                removed = gradient - tf.clip_by_value(gradient, -level, level)
                residual = residuals[i]
                residual.assign(
                    tf.where(
                        tf.math.is_finite(scaler),
                        tf.cast(removed, residual.dtype),
                        residual.value,
                    )
                )

    def clear(self, ids) -> None:
        """E <- 0: the gradients went in float, whole."""
        for residuals in self.residuals:
            for i in ids:
                residuals[i].assign(tf.zeros(residuals[i].shape))


def _per_element(values, first, gradient, bucket_size):
    """The value of each element's bucket; the number of the next bucket."""
    size = tf.size(gradient, tf.int64)
    if not bucket_size:
        value = tf.cast(values[first], gradient.dtype)
        return tf.fill(tf.shape(gradient), value), first + 1
    buckets = -(-size // bucket_size)
    spread = tf.repeat(values[first : first + buckets], bucket_size)[:size]
    return (
        tf.reshape(tf.cast(spread, gradient.dtype), tf.shape(gradient)),
        first + buckets,
    )
