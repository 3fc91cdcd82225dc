"""LeNet, as the talk trains it on MNIST."""

from __future__ import annotations

import keras

from models.checks import check_images
from models.seeds import layer_seeds


def lenet(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    seed: int | None = None,
) -> keras.Model:
    """Builds LeNet: two convolutions with pooling, two dense layers.

    431,080 parameters for MNIST.

    Args:
      input_shape: height, width, channels; at least 16 x 16.
      num_classes: number of logits.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small for two 5 x 5 convolutions, each
        followed by 2 x 2 pooling.

    Reference:
      LeCun et al., Gradient-based learning applied to document recognition,
      Proc. IEEE 1998; with the 20 and 50 filters and 500 hidden units of
      TernGrad (Wen et al., NeurIPS 2017), section 4.1.
    """
    check_images(input_shape, at_least=16)
    seeds = iter(layer_seeds(seed, 4))

    def glorot():
        return keras.initializers.GlorotUniform(seed=next(seeds))

    images = keras.Input(input_shape, name="images")
    x = keras.layers.Conv2D(20, 5, kernel_initializer=glorot(), name="conv1")(
        images
    )
    x = keras.layers.MaxPooling2D(2, name="pool1")(x)
    x = keras.layers.Conv2D(50, 5, kernel_initializer=glorot(), name="conv2")(x)
    x = keras.layers.MaxPooling2D(2, name="pool2")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 4 * 4 * 50]
    x = keras.layers.Dense(
        500, activation="relu", kernel_initializer=glorot(), name="hidden"
    )(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=glorot(), name="logits"
    )(x)
    return keras.Model(images, logits, name="lenet")
