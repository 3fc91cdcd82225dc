"""ResNet-50."""

from __future__ import annotations

import keras

from models.blocks import conv_bn
from models.checks import check_images
from models.seeds import layer_seeds

# Of each stage: blocks, filters of their 3 x 3 convolution.
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


def resnet50(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    seed: int | None = None,
) -> keras.Model:
    """Builds ResNet-50: sixteen bottleneck blocks.

    25,557,032 trainable parameters for 1000 classes and 53,120 moving
    statistics. (`keras.applications.ResNet50` has 25,583,592: a bias ahead
    of every batch normalization, which takes it out again.)

    Args:
      input_shape: height, width, channels; at least 32 x 32.
      num_classes: number of logits.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`.

    Raises:
      ValueError: the images are too small.

    Departure: a block's stride is that of its 3 x 3 convolution, and the last
      scale of each block begins at 0, so that every block begins as the
      identity (Goyal et al., arXiv:1706.02677, section 5.1).

    Reference:
      He et al., Deep residual learning for image recognition, CVPR 2016,
      table 1.
    """
    check_images(input_shape, at_least=32)
    seeds = iter(layer_seeds(seed, 54))

    def conv(x, filters, size, name, strides=1, relu=True, gamma="ones"):
        return conv_bn(
            x,
            filters,
            size,
            keras.initializers.HeNormal(seed=next(seeds)),
            f"{name}_{{}}",
            strides,
            relu,
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer=gamma,
        )

    def block(x, filters, name, strides, project):
        shortcut = x
        if project:
            shortcut = conv(
                x, 4 * filters, 1, f"{name}_shortcut", strides, relu=False
            )
        x = conv(x, filters, 1, f"{name}_1")
        x = conv(x, filters, 3, f"{name}_2", strides)
        x = conv(x, 4 * filters, 1, f"{name}_3", relu=False, gamma="zeros")
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    images = keras.Input(input_shape, name="images")
    x = conv(images, 64, 7, "stem", strides=2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for stage, (blocks, filters) in enumerate(_STAGES, start=2):
        for i in range(blocks):
            x = block(
                x,
                filters,
                f"stage{stage}_block{i + 1}",
                strides=2 if i == 0 and stage > 2 else 1,
                project=i == 0,
            )
    x = keras.layers.GlobalAveragePooling2D(name="pool5")(x)  # [batch, 2048]
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="logits",
    )(x)
    return keras.Model(images, logits, name="resnet50")
