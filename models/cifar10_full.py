"""The ConvNet that SSL makes sparse on CIFAR-10."""

from __future__ import annotations

import keras

from models.checks import check_dropout, check_images
from models.seeds import layer_seeds


def cifar10_full(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """Builds three 5 x 5 convolutions with pooling and one dense layer.

    89,578 parameters for CIFAR-10.

    Args:
      input_shape: height, width, channels; at least 8 x 8.
      num_classes: number of logits.
      dropout: rate ahead of the dense layer, in [0, 1).
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or `dropout` is outside [0, 1).

    Departure: no local response normalization within channels, which Keras
      does not have; initial weights after Glorot, as images are not in
      [0, 255] here.

    Reference:
      SSL (Wen et al., NIPS 2016), section 4.2, "ConvNet": Caffe's example
      cifar10_full, after cuda-convnet's layers (Krizhevsky), with dropout.
    """
    check_images(input_shape, at_least=8)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 4))

    def glorot():
        return keras.initializers.GlorotUniform(seed=next(seeds))

    def conv(x, filters, name, **options):
        return keras.layers.Conv2D(
            filters,
            5,
            padding="same",
            kernel_initializer=glorot(),
            name=name,
            **options,
        )(x)

    def average(x, name):
        return keras.layers.AveragePooling2D(3, 2, padding="same", name=name)(x)

    images = keras.Input(input_shape, name="images")
    x = conv(images, 32, "conv1")
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = keras.layers.ReLU(name="relu1")(x)
    x = average(conv(x, 32, "conv2", activation="relu"), "pool2")
    x = average(conv(x, 64, "conv3", activation="relu"), "pool3")
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 4 * 4 * 64]
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=glorot(), name="logits"
    )(x)
    return keras.Model(images, logits, name="cifar10_full")
