"""VGG's network A, the largest of TernGrad's performance model."""

from __future__ import annotations

import keras

from models.blocks import conv_bn
from models.checks import check_dropout, check_images
from models.seeds import layer_seeds

# Filters of the convolutions between one pooling and the next.
_BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg_a(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """Builds VGG-A: eight 3 x 3 convolutions, three dense layers.

    132,863,336 trainable parameters for 1000 classes at 224 x 224, the
    paper's 133 million: where VGG has a bias in each convolution, this has
    the shift of batch normalization. Beside them, 5,504 moving statistics.

    Args:
      input_shape: height, width, channels; at least 32 x 32.
      num_classes: number of logits.
      dropout: rate after each of the two hidden dense layers, in [0, 1).
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or `dropout` is outside [0, 1).

    Reference:
      Simonyan and Zisserman, Very deep convolutional networks for
      large-scale image recognition, ICLR 2015, table 1, column A. TernGrad
      (Wen et al., NIPS 2017), section 5 (VggNet-A); the authors' code for
      batch normalization (no scale).
    """
    check_images(input_shape, at_least=32)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 11))

    def glorot():
        return keras.initializers.GlorotUniform(seed=next(seeds))

    images = x = keras.Input(input_shape, name="images")
    for block, layers in enumerate(_BLOCKS, start=1):
        for layer, filters in enumerate(layers, start=1):
            x = conv_bn(
                x, filters, 3, glorot(), f"{{}}{block}_{layer}", scale=False
            )
        x = keras.layers.MaxPooling2D(2, name=f"pool{block}")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 7 * 7 * 512]
    for name in ("6", "7"):
        x = keras.layers.Dense(
            4096,
            activation="relu",
            kernel_initializer=glorot(),
            name=f"fc{name}",
        )(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{name}")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=glorot(), name="logits"
    )(x)
    return keras.Model(images, logits, name="vgg_a")
