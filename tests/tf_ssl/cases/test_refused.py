"""Quantized layers and LoRA: left whole by name, with what to do."""

import keras
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import noise, shrunk

layers = keras.layers


def network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, name="a"),
            layers.Dense(4, name="b"),
            layers.Dense(2, name="c"),
        ]
    )


def quantized():
    model = network()
    model.quantize("int8")
    return model, ("a", "is quantized (int8): shrink the model before quantize")


def lora():
    model = network()
    model.get_layer("b").enable_lora(2)
    return model, ("b", "before enable_lora, or merge them first")


@pytest.mark.parametrize(
    "build",
    [
        quantized,
        lora,
    ],
)
def test_the_layer_is_named_with_what_to_do(build):
    model, (name, advice) = build()
    structures = tf_ssl.find_structures(model)
    reasons = [text for _, text in structures.skipped if advice in text]
    assert any(name in text for text in reasons), structures.skipped
    with pytest.raises(KeyError) as error:
        structures["a/units"]
    message = error.value.args[0]
    assert message.startswith("No structure 'a/units'. a was left whole: ")
    assert advice in message


@pytest.mark.parametrize("build", [quantized, lora])
def test_such_a_model_shrinks_to_itself(build):
    model, _ = build()
    small = shrunk(model, noise(3, 6))
    assert small.count_params() == model.count_params()
