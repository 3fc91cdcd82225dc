import re

import pytest

from models.cifar10_full import cifar10_full
from tests.models.outline import outline

CIFAR10_FULL_PARAMETERS = 89_578  # of Caffe's example cifar10_full


def test_number_of_parameters():
    assert outline(cifar10_full).count_params() == CIFAR10_FULL_PARAMETERS


def test_shapes():
    model = outline(cifar10_full)
    shapes = {v.path: tuple(v.shape) for v in model.trainable_variables}
    assert shapes == {
        "conv1/kernel": (5, 5, 3, 32),
        "conv1/bias": (32,),
        "conv2/kernel": (5, 5, 32, 32),
        "conv2/bias": (32,),
        "conv3/kernel": (5, 5, 32, 64),
        "conv3/bias": (64,),
        "logits/kernel": (1024, 10),
        "logits/bias": (10,),
    }


def test_order_of_the_layers():
    names = [layer.name for layer in outline(cifar10_full).layers]
    assert (
        names
        == (
            "images conv1 pool1 relu1 conv2 pool2 conv3 pool3 flatten dropout "
            "logits"
        ).split()
    )
    names = [layer.name for layer in outline(cifar10_full, dropout=0.0).layers]
    assert "dropout" not in names


def test_arguments_are_checked():
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        "channels) of at least 8 x 8. Received: input_shape=(7, 32, 3)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cifar10_full(input_shape=(7, 32, 3))
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        "Received: dropout=-0.5"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cifar10_full(dropout=-0.5)
