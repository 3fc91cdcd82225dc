"""Local response normalization, which AlexNet and the CIFAR ConvNet use."""

from __future__ import annotations

import keras
import tensorflow as tf


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
        self.depth_radius = depth_radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs):
        return tf.nn.local_response_normalization(
            inputs, self.depth_radius, self.bias, self.alpha, self.beta
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
        }
