import re

import keras
import pytest

import models
from tests.models.outline import outline

IMAGES = [
    "alexnet",
    "caffenet",
    "cifar10_full",
    "compactnet",
    "convnet",
    "googlenet",
    "lenet",
    "mlp",
    "resnet20",
    "resnet32",
    "resnet50",
    "resnet56",
    "vgg_a",
]
WORDS = ["ptb_lstm", "rhn"]
QUESTIONS = ["bidaf"]
NAMES = sorted(IMAGES + WORDS + QUESTIONS)

# Where the weights are made: small images make the dense layers small.
SMALL = {
    "alexnet": 57,
    "caffenet": 67,
    "googlenet": 32,
    "resnet50": 32,
    "vgg_a": 32,
}


# The others, made small.
OPTIONS = {
    "ptb_lstm": {"vocab_size": 11, "hidden": (6, 5), "embedding": 4},
    "rhn": {"vocab_size": 11, "width": 6, "depth": 3},
    "bidaf": {"vocab_size": 11, "char_vocab_size": 7, "d": 4},
}


def test_names():
    assert models.names() == NAMES
    assert models.names("images") == IMAGES
    assert models.names("words") == WORDS
    assert models.names("questions") == QUESTIONS


def test_unknown_kind_of_data():
    message = (
        "Invalid value for argument reads. Expected one of {'images', 'words', "
        "'questions'}. Received: reads='sounds'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        models.names("sounds")


@pytest.mark.parametrize("name", IMAGES)
def test_every_network_for_images_is_functional_and_built(name):
    model = outline(
        models.build, name=name, input_shape=(68, 70, 3), num_classes=7
    )
    assert isinstance(model, keras.Model)
    assert model.name == name
    assert model.input_shape == (None, 68, 70, 3)
    assert model.output_shape == (None, 7)
    assert model.layers[-1].name == "logits"
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("name", WORDS)
def test_every_language_model_is_functional_and_built(name):
    model = models.build(name, **OPTIONS[name])
    assert isinstance(model, keras.Model)
    assert model.name == name
    assert model.input_shape == (None, None)
    assert model.output_shape == (None, None, 11)
    fixed = models.build(name, **OPTIONS[name], stateful=True, batch_size=3)
    assert fixed.input_shape == (3, None)
    assert fixed.output_shape == (3, None, 11)


@pytest.mark.parametrize("name", NAMES)
def test_seed_determines_the_weights(name):
    def kernels(seed):
        size = SMALL.get(name, 28)
        options = OPTIONS.get(
            name, {"input_shape": (size, size, 3), "num_classes": 7}
        )
        model = models.build(name, **options, seed=seed)
        return [v.numpy() for v in model.trainable_variables if v.ndim > 1]

    first, again, other = kernels(3), kernels(3), kernels(4)
    assert [x.tobytes() for x in first] == [x.tobytes() for x in again]
    # Every kernel has its own numbers, and the seed changes every one.
    ends = {x.ravel()[:4].tobytes() for x in [*first, *other]}
    assert len(ends) == len(first) + len(other)


def test_without_a_seed_weights_differ():
    first, second = (models.build("lenet").get_weights() for _ in range(2))
    assert (first[0] != second[0]).any()


def test_unknown_name():
    known = ", ".join(map(repr, NAMES))
    message = (
        f"Invalid value for argument name. Expected one of {{{known}}}. "
        "Received: name='lenett'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        models.build("lenett")


def test_unknown_option():
    message = (
        "Invalid option for model 'lenet'. Expected one of {'input_shape', "
        "'num_classes', 'seed'}. Received: 'dropout'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        models.build("lenet", dropout=0.5)
