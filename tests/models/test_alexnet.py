import re

import numpy as np
import pytest

from models.alexnet import alexnet
from tests.models.outline import num_elements, outline, statistics

ALEXNET_PARAMETERS = 60_965_224  # Krizhevsky et al. 2012, two columns


@pytest.mark.parametrize("size", [224, 227])
def test_number_of_parameters(size):
    model = outline(alexnet, input_shape=(size, size, 3))
    assert num_elements(model.trainable_variables) == ALEXNET_PARAMETERS
    assert num_elements(statistics(model)) == 2_752


def test_shapes():
    model = outline(alexnet)
    kernels = {
        v.path.split("/")[0]: tuple(v.shape)
        for v in model.trainable_variables
        if v.name == "kernel"
    }
    columns = {
        "conv1": (11, 11, 3, 48),
        "conv2": (5, 5, 48, 128),
        "conv3": (3, 3, 256, 192),
        "conv4": (3, 3, 192, 192),
        "conv5": (3, 3, 192, 128),
    }
    assert kernels == {
        **{f"{name}_1": shape for name, shape in columns.items()},
        **{f"{name}_2": shape for name, shape in columns.items()},
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
        "logits": (4096, 1000),
    }


def test_maps_are_those_of_the_paper():
    model = outline(alexnet)
    for name, size in (("conv2_1", 27), ("columns2", 13), ("columns5", 6)):
        assert model.get_layer(name).output.shape[1:3] == (size, size)


def test_columns_meet_at_the_third_convolution():
    model = outline(alexnet)
    assert model.get_layer("conv2_1").input.shape[-1] == 48
    assert model.get_layer("conv3_1").input is model.get_layer("conv3_2").input
    assert model.get_layer("conv4_1").input.shape[-1] == 192


@pytest.mark.parametrize("dropout, layers", [(0.0, 0), (0.2, 2)])
def test_dropout_layers(dropout, layers):
    model = outline(alexnet, dropout=dropout)
    rates = [x.rate for x in model.layers if x.name.startswith("dropout")]
    assert rates == [dropout] * layers


def test_forward():
    model = alexnet(input_shape=(57, 57, 3), num_classes=5, seed=0)
    images = np.random.default_rng(0).normal(size=(2, 57, 57, 3))
    logits = model(images.astype("float32")).numpy()
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("shape", [(56, 224, 3), (224, 56, 3), (224, 224)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 57 x 57. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        alexnet(input_shape=shape)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_checked(dropout):
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        f"Received: dropout={dropout}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        alexnet(dropout=dropout)
