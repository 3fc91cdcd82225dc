"""The ConvNet that TernGrad trains on CIFAR-10."""

from __future__ import annotations

import keras

from models.checks import check_images
from models.layers import LocalResponseNormalization
from models.seeds import layer_seeds


def convnet(
    input_shape: tuple[int, int, int] = (24, 24, 3),
    num_classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """Builds two normalized convolutions and three dense layers.

    1,068,298 parameters for crops of 24 x 24 from CIFAR-10.

    Args:
      input_shape: height, width, channels; at least 8 x 8.
      num_classes: number of logits.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]`, as
      `models.data.load(..., augment="cifar")` gives them, to logits
      `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small.

    Reference:
      TernGrad (Wen et al., NIPS 2017), section 4.1, "CifarNet": the network
      of TensorFlow's tutorial on CIFAR-10, after cuda-convnet's layers
      (Krizhevsky); initial weights as in the authors' code.
    """
    check_images(input_shape, at_least=8)
    seeds = iter(layer_seeds(seed, 5))

    def normal(stddev):
        return keras.initializers.TruncatedNormal(
            stddev=stddev, seed=next(seeds)
        )

    def conv(x, bias, name):
        return keras.layers.Conv2D(
            64,
            5,
            padding="same",
            activation="relu",
            kernel_initializer=normal(0.05),
            bias_initializer=keras.initializers.Constant(bias),
            name=name,
        )(x)

    def pool(x, name):
        return keras.layers.MaxPooling2D(3, 2, padding="same", name=name)(x)

    def normalize(x, name):
        return LocalResponseNormalization(
            depth_radius=4, bias=1.0, alpha=0.001 / 9, beta=0.75, name=name
        )(x)

    def hidden(x, units, name):
        return keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=normal(0.04),
            bias_initializer=keras.initializers.Constant(0.1),
            name=name,
        )(x)

    images = keras.Input(input_shape, name="images")
    x = normalize(pool(conv(images, 0.0, "conv1"), "pool1"), "lrn1")
    x = pool(normalize(conv(x, 0.1, "conv2"), "lrn2"), "pool2")
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 6 * 6 * 64]
    x = hidden(x, 384, "fc3")
    x = hidden(x, 192, "fc4")
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=normal(1 / 192), name="logits"
    )(x)
    return keras.Model(images, logits, name="convnet")
