"""Local response normalization, which AlexNet and the CIFAR ConvNet use."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import tf_ssl


@keras.saving.register_keras_serializable(package="models")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by a norm of its neighbours in other channels.

        y[c] = x[c] / (bias + alpha * sum(x[c-r .. c+r]^2))^beta

    with r = `depth_radius`. No weights.

    Example:
    >>> import numpy as np
    >>> layer = LocalResponseNormalization(1, bias=1.0, alpha=1.0, beta=0.5)
    >>> layer(np.array([[[[0.0, 0.0, 2.0]]]], "float32")).numpy().round(3)
    array([[[[0.   , 0.   , 0.894]]]], dtype=float32)

    Args:
      depth_radius: r, channels on each side, at least 1; default 2.
      bias: > 0; default 2.
      alpha: weight of the squares, > 0; default 1e-4.
      beta: exponent, > 0; default 0.75.
      positions: c of each channel, ascending integers >= 0, where channels are
        missing (they count as zero); None: 0, 1, 2, ...
      **kwargs: of `keras.layers.Layer`.

    Raises:
      ValueError: an argument is outside its range.

    Reference:
      Krizhevsky et al., ImageNet classification with deep convolutional
      neural networks, NIPS 2012, section 3.3; the defaults are its r = n / 2
      with n = 5, k, alpha and beta.
    """

    def __init__(
        self,
        depth_radius: int = 2,
        bias: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        positions: list[int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth_radius < 1:
            raise ValueError(
                "Invalid value for argument depth_radius. Expected at least "
                f"1. Received: depth_radius={depth_radius}"
            )
        for name, value in (("bias", bias), ("alpha", alpha), ("beta", beta)):
            if not value > 0:
                raise ValueError(
                    f"Invalid value for argument {name}. Expected a positive "
                    f"number. Received: {name}={value}"
                )
        if positions is not None and (
            min(positions, default=0) < 0
            or sorted(set(positions)) != list(positions)
        ):
            raise ValueError(
                "Invalid value for argument positions. Expected ascending "
                f"integers >= 0. Received: positions={positions}"
            )
        self.positions = positions
        self.depth_radius = depth_radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs):
        if self.positions is not None:
            return self._call_with_gaps(inputs)
        return tf.nn.local_response_normalization(
            inputs, self.depth_radius, self.bias, self.alpha, self.beta
        )

    def _call_with_gaps(self, inputs):
        positions = np.array(self.positions)
        distance = np.abs(positions[:, None] - positions)
        near = tf.constant(distance <= self.depth_radius)  # [channel, channel]
        squares = tf.tensordot(
            tf.square(inputs), tf.cast(near, inputs.dtype), axes=1
        )
        norm = self.bias + self.alpha * squares
        if self.beta == 0.75:  # the usual one; a power takes much longer
            root = tf.math.rsqrt(norm)
            return inputs * root * tf.sqrt(root)
        return inputs * tf.pow(norm, -self.beta)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
            "positions": self.positions,
        }


@tf_ssl.structure_rule(LocalResponseNormalization)
class LocalResponseNormalizationRule(tf_ssl.Rule):
    """Channels that are zero can go: the others know where they were.

    Neighbours read a channel, as weights would.
    """

    def declare(self):
        self.passes([-1], value=lambda v: np.where(v == 0, 0.0, np.nan))

    def needs(self, read, wanted, inputs, gone):
        return [{a: np.ones(len(v), bool) for a, v in inputs[0].items()}]

    def read_axes(self, index):
        return (-1,)

    def foldable(self, read, constants, index):
        return {-1: constants[-1] == 0}

    def folds(self, read, constants, index):
        return []  # zeros leave nothing behind

    def config(self, keep):
        kept = keep(self.inputs[0][-1])
        if kept.all():
            return {}
        before = self.layer.positions
        before = np.arange(len(kept)) if before is None else np.array(before)
        return {"positions": before[kept].tolist()}


@tf_ssl.multiply_add_rule(LocalResponseNormalization)
def _no_multiply_adds(layer, call):
    return 0
