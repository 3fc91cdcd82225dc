"""AlexNet in two columns, as TernGrad trains it on ImageNet."""

from __future__ import annotations

import keras

from models.blocks import conv_bn
from models.checks import check_dropout, check_images
from models.layers import LocalResponseNormalization
from models.seeds import layer_seeds


def alexnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """Builds AlexNet: two columns of five convolutions, three dense layers.

    60,965,224 trainable parameters for 1000 classes at 224 x 224 or 227 x
    227, the number of the original network: where that has a bias in each
    convolution, this has the shift of batch normalization. Beside them,
    2,752 moving statistics.

    The columns are layers of their own (`conv1_1`, `conv1_2`, ...), so each
    kernel of a column has a scaler of its own, as in the authors' code.

    Args:
      input_shape: height, width, channels; at least 57 x 57.
      num_classes: number of logits.
      dropout: rate after each of the two hidden dense layers, in [0, 1). The
        paper's: 0.5 with float gradients, 0.2 with ternary ones.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or `dropout` is outside [0, 1).

    Departure: the moving statistics forget at 0.99 a step instead of 0.9997,
      with which they stay near their start for thousands of steps.

    Reference:
      Krizhevsky et al., ImageNet classification with deep convolutional
      neural networks, NIPS 2012. TernGrad (Wen et al., NIPS 2017), section
      4.2; the authors' code for batch normalization (no scale) ahead of ReLU
      and the initial weights.
    """
    check_images(input_shape, at_least=57)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 13))

    def normal(stddev):
        return keras.initializers.TruncatedNormal(
            stddev=stddev, seed=next(seeds)
        )

    def conv(x, filters, size, name, strides=1):
        return conv_bn(
            x, filters, size, normal(0.01), f"{{}}{name}", strides, scale=False
        )

    def normalize(x, name):
        return LocalResponseNormalization(name=f"lrn{name}")(x)

    def pool(x, name):
        return keras.layers.MaxPooling2D(3, 2, name=f"pool{name}")(x)

    def hidden(x, name):
        x = keras.layers.Dense(
            4096,
            activation="relu",
            kernel_initializer=normal(0.005),
            bias_initializer=keras.initializers.Constant(0.1),
            name=f"fc{name}",
        )(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{name}")(x)
        return x

    images = keras.Input(input_shape, name="images")
    columns = []
    for column in ("1", "2"):
        x = conv(images, 48, 11, f"1_{column}", strides=4)
        x = pool(normalize(x, f"1_{column}"), f"1_{column}")
        x = conv(x, 128, 5, f"2_{column}")
        x = pool(normalize(x, f"2_{column}"), f"2_{column}")
        columns.append(x)
    # The one layer that sees both columns: [batch, 13, 13, 2 * 128].
    both = keras.layers.Concatenate(name="columns2")(columns)
    columns = []
    for column in ("1", "2"):
        x = conv(both, 192, 3, f"3_{column}")
        x = conv(x, 192, 3, f"4_{column}")
        x = conv(x, 128, 3, f"5_{column}")
        columns.append(pool(x, f"5_{column}"))
    x = keras.layers.Concatenate(name="columns5")(columns)
    x = keras.layers.Flatten(name="flatten")(x)  # [batch, 6 * 6 * 256]
    x = hidden(x, "6")
    x = hidden(x, "7")
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=normal(0.01), name="logits"
    )(x)
    return keras.Model(images, logits, name="alexnet")
