"""Layers that networks repeat."""

from __future__ import annotations

import keras


def conv_bn(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    initializer: keras.initializers.Initializer,
    name: str,
    strides: int = 1,
    relu: bool = True,
    **normalization,
) -> keras.KerasTensor:
    """A convolution without a bias, batch normalization and ReLU.

    Example:
    >>> images = keras.Input((8, 8, 3))
    >>> x = conv_bn(images, 4, 3, keras.initializers.HeNormal(0), "{}1")
    >>> keras.Model(images, x).layers[1].name
    'conv1'

    Args:
      x: `[batch, height, width, channels]`.
      filters: number of filters.
      size: height and width of a filter.
      initializer: of the kernel.
      name: of the layers; {} in it stands for conv, bn and relu.
      strides: of the convolution, whose padding is "same".
      relu: whether there is a ReLU.
      **normalization: arguments of `keras.layers.BatchNormalization`.

    Returns:
      `[batch, height, width, filters]`, height and width divided by `strides`.
    """
    x = keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=initializer,
        name=name.format("conv"),
    )(x)
    x = keras.layers.BatchNormalization(
        name=name.format("bn"), **normalization
    )(x)
    return keras.layers.ReLU(name=name.format("relu"))(x) if relu else x
