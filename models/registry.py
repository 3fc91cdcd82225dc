"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from models import (
    alexnet,
    caffenet,
    cifar10_full,
    compactnet,
    convnet,
    googlenet,
    lenet,
    mlp,
    resnet50,
    resnet_cifar,
    vgg_a,
)

# One line per model: its name and the function that builds it.
_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "alexnet": alexnet.alexnet,
    "caffenet": caffenet.caffenet,
    "cifar10_full": cifar10_full.cifar10_full,
    "compactnet": compactnet.compactnet,
    "convnet": convnet.convnet,
    "googlenet": googlenet.googlenet,
    "lenet": lenet.lenet,
    "mlp": mlp.mlp,
    "resnet20": resnet_cifar.resnet20,
    "resnet32": resnet_cifar.resnet32,
    "resnet50": resnet50.resnet50,
    "resnet56": resnet_cifar.resnet56,
    "vgg_a": vgg_a.vgg_a,
}


def names() -> list[str]:
    """Returns the names that `build` knows, sorted."""
    return sorted(_BUILDERS)


def build(name: str, **options) -> keras.Model:
    """Builds a model by name.

    Example:
    >>> build("lenet", num_classes=10).count_params()
    431080

    Args:
      name: one of `names()`.
      **options: what the model's own function takes. All take
        `input_shape` (without the batch), `num_classes` and `seed` (of the
        initial weights; None draws one).

    Returns:
      A built Keras Functional model from images to logits.

    Raises:
      ValueError: `name` or an option is not known.
    """
    if name not in _BUILDERS:
        raise ValueError(
            "Invalid value for argument name. Expected one of "
            f"{{{', '.join(map(repr, names()))}}}. Received: name={name!r}"
        )
    known = inspect.signature(_BUILDERS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(
                f"Invalid option for model {name!r}. Expected one of "
                f"{{{', '.join(map(repr, known))}}}. Received: {option!r}"
            )
    return _BUILDERS[name](**options)
