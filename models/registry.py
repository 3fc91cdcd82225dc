"""Models by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from models import (
    alexnet,
    bidaf,
    caffenet,
    cifar10_full,
    compactnet,
    convnet,
    googlenet,
    lenet,
    mlp,
    ptb_lstm,
    resnet50,
    resnet_cifar,
    rhn,
    vgg_a,
)
from models.checks import check_one_of

# One line per model: its name and the function that builds it; in groups of
# those that read the same kind of data.
_BUILDERS_OF: dict[str, dict[str, Callable[..., keras.Model]]] = {
    "images": {
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
    },
    "words": {
        "ptb_lstm": ptb_lstm.ptb_lstm,
        "rhn": rhn.rhn,
    },
    "questions": {
        "bidaf": bidaf.bidaf,
    },
}
_BUILDERS = {
    name: builder
    for group in _BUILDERS_OF.values()
    for name, builder in group.items()
}


def names(reads: str | None = None) -> list[str]:
    """Returns the names that `build` knows, sorted.

    >>> names("words")
    ['ptb_lstm', 'rhn']

    Args:
      reads: only models of this kind of data: "images", "words" (language
        models) or "questions" (about a text). None: all.

    Raises:
      ValueError: there is no such kind of data.
    """
    if reads is None:
        return sorted(_BUILDERS)
    check_one_of("reads", reads, _BUILDERS_OF)
    return sorted(_BUILDERS_OF[reads])


def build(name: str, **options) -> keras.Model:
    """Builds a model by name.

    Example:
    >>> build("lenet", num_classes=10).count_params()
    431080

    Args:
      name: one of `names()`.
      **options: what the model's own function takes. All take `seed` (of the
        initial weights; None draws one); networks for images `input_shape`
        (without the batch) and `num_classes`; language models `vocab_size`,
        `stateful` and `batch_size`.

    Returns:
      A built Keras Functional model from images, words, or a text and a
      question to logits.

    Raises:
      ValueError: `name` or an option is not known.
    """
    check_one_of("name", name, names())
    known = inspect.signature(_BUILDERS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(
                f"Invalid option for model {name!r}. Expected one of "
                f"{{{', '.join(map(repr, known))}}}. Received: {option!r}"
            )
    return _BUILDERS[name](**options)
