import re

import pytest

from models.mlp import mlp


def test_number_of_parameters():
    model = mlp(input_shape=(8,), num_classes=3, hidden=(5, 4))
    assert model.count_params() == (8 + 1) * 5 + (5 + 1) * 4 + (4 + 1) * 3


def test_default_is_the_network_of_ssl():
    shapes = {v.path: tuple(v.shape) for v in mlp().trainable_variables}
    assert shapes == {
        "hidden1/kernel": (784, 500),
        "hidden1/bias": (500,),
        "hidden2/kernel": (500, 300),
        "hidden2/bias": (300,),
        "logits/kernel": (300, 10),
        "logits/bias": (10,),
    }


def test_equal_layers_begin_different():
    weights = mlp(input_shape=(6,), hidden=(6, 6), seed=1).get_weights()
    assert (weights[0] != weights[2]).any()


def test_dropout_layers():
    names = [layer.name for layer in mlp(hidden=(5, 4), dropout=0.5).layers]
    assert [name for name in names if "dropout" in name] == [
        "dropout1",
        "dropout2",
    ]


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_checked(dropout):
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        f"Received: dropout={dropout}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        mlp(dropout=dropout)
