"""GoogLeNet (Inception v1), as TernGrad trains it on ImageNet."""

from __future__ import annotations

import keras

from models.blocks import conv_bn
from models.checks import check_dropout, check_images
from models.seeds import layer_seeds

# Filters of each module: 1x1; 3x3 and the 1x1 ahead of it; "5x5" and the 1x1
# ahead of it; the 1x1 after pooling. GoogLeNet's table 1. None is pooling.
_MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "pool3": None,
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "pool4": None,
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


def googlenet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    dropout: float = 0.2,
    seed: int | None = None,
) -> keras.Model:
    """Builds GoogLeNet: nine inception modules, one classifier.

    6,617,624 trainable parameters for 1000 classes and 14,560 moving
    statistics. The original has 6,998,552 without its auxiliary classifiers;
    the difference is its 5 x 5 convolutions, 3 x 3 here as in TernGrad's
    code. Where the original has a bias in each convolution, this has the
    shift of batch normalization.

    Args:
      input_shape: height, width, channels; at least 32 x 32.
      num_classes: number of logits.
      dropout: rate ahead of the logits, in [0, 1). The paper's: 0.2 with
        float gradients, 0.08 with ternary ones.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or `dropout` is outside [0, 1).

    Departure: the moving statistics forget at 0.99 a step instead of 0.9997,
      with which they stay near their start for thousands of steps.

    Reference:
      Szegedy et al., Going deeper with convolutions, CVPR 2015, table 1.
      TernGrad (Wen et al., NIPS 2017), section 4.2; the authors' code (slim's
      Inception v1) for batch normalization (no scale), 3 x 3 in place of
      5 x 5, no auxiliary classifiers and no local response normalization.
    """
    check_images(input_shape, at_least=32)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 58))

    def conv(x, filters, size, name, strides=1):
        return conv_bn(
            x,
            filters,
            size,
            keras.initializers.HeNormal(seed=next(seeds)),
            f"{{}}{name}",
            strides,
            scale=False,
        )

    def pool(x, name, strides=2):
        return keras.layers.MaxPooling2D(3, strides, padding="same", name=name)(
            x
        )

    def module(x, filters, name):
        one, (reduce3, three), (reduce5, five), projected = filters
        return keras.layers.Concatenate(name=f"module{name}")(
            [
                conv(x, one, 1, f"{name}_1x1"),
                conv(
                    conv(x, reduce3, 1, f"{name}_3x3_reduce"),
                    three,
                    3,
                    f"{name}_3x3",
                ),
                conv(
                    conv(x, reduce5, 1, f"{name}_5x5_reduce"),
                    five,
                    3,
                    f"{name}_5x5",
                ),
                conv(
                    pool(x, f"pool{name}", strides=1),
                    projected,
                    1,
                    f"{name}_pool",
                ),
            ]
        )

    images = keras.Input(input_shape, name="images")
    x = pool(conv(images, 64, 7, "1", strides=2), "pool1")
    x = conv(x, 64, 1, "2_reduce")
    x = pool(conv(x, 192, 3, "2"), "pool2")
    for name, filters in _MODULES.items():
        x = pool(x, name) if filters is None else module(x, filters, name)
    x = keras.layers.GlobalAveragePooling2D(name="pool5")(x)  # [batch, 1024]
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="logits",
    )(x)
    return keras.Model(images, logits, name="googlenet")
