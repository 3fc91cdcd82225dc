import re

import keras
import pytest

import models


def test_names():
    assert models.names() == ["lenet", "mlp"]


@pytest.mark.parametrize("name", models.names())
def test_every_model_is_functional_and_built(name):
    model = models.build(name, input_shape=(16, 18, 3), num_classes=7)
    assert isinstance(model, keras.Model)
    assert model.name == name
    assert model.input_shape == (None, 16, 18, 3)
    assert model.output_shape == (None, 7)


@pytest.mark.parametrize("name", models.names())
def test_seed_determines_the_weights(name):
    def first_and_last(seed):
        weights = models.build(name, seed=seed).get_weights()
        return weights[0].tobytes() + weights[-2].tobytes()

    assert first_and_last(3) == first_and_last(3)
    assert first_and_last(3) != first_and_last(4)
    assert first_and_last(None) != first_and_last(None)


def test_unknown_name():
    message = (
        "Invalid value for argument name. Expected one of {'lenet', 'mlp'}. "
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
