"""A compact network of Conv-M modules."""

from __future__ import annotations

import keras

from models.checks import check_images
from models.seeds import layer_seeds

# (filters of a branch, modules) of each stage; pooling halves maps between
# stages. The first number is the stem's filters.
_SIZES = {
    "large": (64, ((48, 2), (96, 2), (144, 2), (168, 2))),
    "small": (16, ((16, 1), (32, 2), (48, 2))),
}


def compactnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    size: str | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Builds a network of Conv-M modules.

    A module gives its input, behind a 1 x 1 convolution to f channels, to three
    branches of f filters of 3 x 3: a convolution, a dilated convolution, which
    sees 5 x 5, and a transposed convolution. Their maps are concatenated.

    "large": 4,100,136 trainable parameters for 1000 classes, as the paper's 4.1
    million; "small": 206,330 for ten classes of 32 x 32 x 3.

    Args:
      input_shape: height, width, channels; at least 64 x 64 ("large") or
        16 x 16.
      num_classes: number of logits.
      size: "large" or "small"; None: "large" from 96 x 96 on.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from images `[batch, height, width, channels]` to
      logits `[batch, num_classes]`; the layer before the logits, "features",
      has `[batch, 3 f]`.

    Raises:
      ValueError: the images are too small, or `size` is neither.

    Departure: the paper leaves its table of layers open. Chosen here: numbers
      of modules and filters, the 1 x 1 convolution in front, batch
      normalization, and transposed convolutions of stride 1, which keep the
      size of the maps.

    Reference:
      Wu, Wen, Afghah, Yan, Chen, Li, A compact DNN: approaching
      GoogLeNet-level accuracy of classification and domain adaptation, CVPR
      2017, section 3.
    """
    if size is None:
        size = "large" if min(input_shape[:2]) >= 96 else "small"
    if size not in _SIZES:
        raise ValueError(
            "Invalid value for argument size. Expected one of {'large', "
            f"'small'}}. Received: size={size!r}"
        )
    check_images(input_shape, at_least=64 if size == "large" else 16)
    stem, stages = _SIZES[size]
    modules = sum(count for _, count in stages)
    seeds = iter(layer_seeds(seed, 2 + 4 * modules))

    def layer(x, kind, filters, window, name, **options):
        x = kind(
            filters,
            window,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
            name=f"{name}_conv",
            **options,
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
        return keras.layers.ReLU(name=f"{name}_relu")(x)

    def module(x, filters, name):
        conv, transposed = keras.layers.Conv2D, keras.layers.Conv2DTranspose
        x = layer(x, conv, filters, 1, f"{name}_reduce")
        return keras.layers.Concatenate(name=name)(
            [
                layer(x, conv, filters, 3, f"{name}_plain"),
                layer(x, conv, filters, 3, f"{name}_dilated", dilation_rate=2),
                layer(x, transposed, filters, 3, f"{name}_transposed"),
            ]
        )

    def pool(x, name):
        return keras.layers.MaxPooling2D(3, 2, padding="same", name=name)(x)

    images = keras.Input(input_shape, name="images")
    conv = keras.layers.Conv2D
    if size == "large":
        x = pool(layer(images, conv, stem, 7, "stem", strides=2), "pool1")
    else:
        x = layer(images, conv, stem, 3, "stem")
    for stage, (filters, count) in enumerate(stages, start=2):
        if stage > 2:
            x = pool(x, f"pool{stage - 1}")
        for i in range(count):
            x = module(x, filters, f"module{stage}{'abc'[i]}")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    logits = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        name="logits",
    )(x)
    return keras.Model(images, logits, name="compactnet")
