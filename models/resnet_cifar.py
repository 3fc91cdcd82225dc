"""Residual networks of 6n + 2 layers for CIFAR-10."""

from __future__ import annotations

import keras

from models.blocks import conv_bn
from models.checks import check_images
from models.seeds import layer_seeds

SHORTCUTS = ("A", "B")
_FILTERS = (16, 32, 64)


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    shortcut: str = "A",
    seed: int | None = None,
) -> keras.Model:
    """Builds ResNet-20: three residual blocks in each of three stages.

    269,722 trainable parameters for CIFAR-10 and 1,376 moving statistics; with
    shortcuts "B" 272,474 and 1,568. See `resnet_cifar`.
    """
    return resnet_cifar(3, input_shape, num_classes, shortcut, seed)


def resnet32(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    shortcut: str = "A",
    seed: int | None = None,
) -> keras.Model:
    """Builds ResNet-32: five residual blocks in each of three stages.

    464,154 trainable parameters for CIFAR-10 and 2,272 moving statistics; with
    shortcuts "B" 466,906 and 2,464. See `resnet_cifar`.
    """
    return resnet_cifar(5, input_shape, num_classes, shortcut, seed)


def resnet56(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    shortcut: str = "A",
    seed: int | None = None,
) -> keras.Model:
    """Builds ResNet-56: nine residual blocks in each of three stages.

    853,018 trainable parameters for CIFAR-10 and 4,064 moving statistics; with
    shortcuts "B" 855,770 and 4,256. See `resnet_cifar`.
    """
    return resnet_cifar(9, input_shape, num_classes, shortcut, seed)


def resnet_cifar(
    blocks: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    shortcut: str = "A",
    seed: int | None = None,
) -> keras.Model:
    """Builds a residual network of 6 `blocks` + 2 layers.

    A block is two 3 x 3 convolutions with batch normalization beside a
    shortcut: `stage2_block1_1_conv`, `stage2_block1_2_conv`, ..., `_add`. The
    stages have 16, 32 and 64 filters; the second and third begin with stride
    2, where the shortcut is

    - "A": every second pixel, with channels of zeros behind: no parameters;
    - "B": a 1 x 1 convolution with batch normalization.

    Args:
      blocks: of each stage, at least 1.
      input_shape: height, width, channels; at least 16 x 16.
      num_classes: number of logits.
      shortcut: "A" or "B".
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]`, as
      `models.data.load(..., augment="cifar_pad")` gives them, to logits
      `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small, or there is no such shortcut.

    Reference:
      He et al., Deep residual learning for image recognition, CVPR 2016,
      section 4.2, which has shortcuts "A". SSL (Wen et al., NIPS 2016),
      section 4.2, removes blocks of the network with shortcuts "B".
    """
    check_images(input_shape, at_least=16)
    if shortcut not in SHORTCUTS:
        raise ValueError(
            "Invalid value for argument shortcut. Expected one of "
            f"{{{', '.join(map(repr, SHORTCUTS))}}}. "
            f"Received: shortcut={shortcut!r}"
        )
    seeds = iter(layer_seeds(seed, 6 * blocks + 4))

    def conv(x, filters, name, size=3, strides=1, relu=True):
        return conv_bn(
            x,
            filters,
            size,
            keras.initializers.HeNormal(seed=next(seeds)),
            name,
            strides,
            relu,
            momentum=0.9,
            epsilon=1e-5,
        )

    def smaller(x, filters, name):
        """The shortcut to half the height and width, twice the channels."""
        name = f"{name}_shortcut"
        if shortcut == "B":
            return conv(x, filters, f"{name}_{{}}", 1, strides=2, relu=False)
        # Layers that anybody can follow, where a pad of the channels is an op.
        x = keras.layers.AveragePooling2D(1, 2, name=f"{name}_pool")(x)
        zeros = keras.layers.Rescaling(0.0, name=f"{name}_zeros")(x)
        return keras.layers.Concatenate(name=f"{name}_concat")([x, zeros])

    def block(x, filters, name, strides):
        trunk = x if strides == 1 else smaller(x, filters, name)
        x = conv(x, filters, f"{name}_1_{{}}", strides=strides)
        x = conv(x, filters, f"{name}_2_{{}}", relu=False)
        x = keras.layers.Add(name=f"{name}_add")([trunk, x])
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    images = keras.Input(input_shape, name="images")
    x = conv(images, _FILTERS[0], "stem_{}")
    for stage, filters in enumerate(_FILTERS, start=1):
        for i in range(1, blocks + 1):
            strides = 2 if i == 1 and stage > 1 else 1
            x = block(x, filters, f"stage{stage}_block{i}", strides)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # [batch, 64]
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="logits",
    )(x)
    return keras.Model(images, logits, name=f"resnet{6 * blocks + 2}")
