"""CaffeNet: AlexNet in one column with grouped convolutions."""

from __future__ import annotations

import keras

from models.checks import check_dropout, check_images
from models.layers import LocalResponseNormalization
from models.seeds import layer_seeds


def caffenet(
    input_shape: tuple[int, int, int] = (227, 227, 3),
    num_classes: int = 1000,
    dropout: float = 0.5,
    seed: int | None = None,
) -> keras.Model:
    """Builds CaffeNet: five convolutions, three dense layers.

    60,965,224 parameters for 1000 classes at 227 x 227. The second, fourth
    and fifth convolution have two groups; in a grouped convolution each half
    of the filters reads its half of the channels.

    Args:
      input_shape: height, width, channels; at least 67 x 67.
      num_classes: number of logits.
      dropout: rate after each of the two hidden dense layers, in [0, 1).
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or `dropout` is outside [0, 1).

    Reference:
      Krizhevsky et al., ImageNet classification with deep convolutional
      neural networks, NIPS 2012, with pooling ahead of normalization as in
      Caffe's reference model, which SSL (Wen et al., NIPS 2016, section 4.3)
      makes sparse.
    """
    check_images(input_shape, at_least=67)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 8))

    def conv(x, filters, size, name, bias, **options):
        return keras.layers.Conv2D(
            filters,
            size,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=0.01, seed=next(seeds)
            ),
            bias_initializer=keras.initializers.Constant(bias),
            name=name,
            **options,
        )(x)

    def pool(x, name):
        return keras.layers.MaxPooling2D(3, 2, name=name)(x)

    def normalize(x, name):
        return LocalResponseNormalization(
            depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75, name=name
        )(x)

    def dense(x, units, stddev, bias, name, activation=None):
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=stddev, seed=next(seeds)
            ),
            bias_initializer=keras.initializers.Constant(bias),
            name=name,
        )(x)

    images = keras.Input(input_shape, name="images")
    x = conv(images, 96, 11, "conv1", 0.0, strides=4)
    x = normalize(pool(x, "pool1"), "lrn1")
    x = conv(x, 256, 5, "conv2", 1.0, padding="same", groups=2)
    x = normalize(pool(x, "pool2"), "lrn2")
    x = conv(x, 384, 3, "conv3", 0.0, padding="same")
    x = conv(x, 384, 3, "conv4", 1.0, padding="same", groups=2)
    x = conv(x, 256, 3, "conv5", 1.0, padding="same", groups=2)
    x = keras.layers.Flatten(name="flatten")(pool(x, "pool5"))
    for name in ("6", "7"):
        x = dense(x, 4096, 0.005, 1.0, f"fc{name}", "relu")
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{name}")(x)
    logits = dense(x, num_classes, 0.01, 0.0, "logits")
    return keras.Model(images, logits, name="caffenet")
