import re

import pytest

from models.caffenet import caffenet
from tests.models.outline import num_elements, outline

CAFFENET_PARAMETERS = 60_965_224  # of Caffe's bvlc_reference_caffenet


def test_number_of_parameters():
    model = outline(caffenet)
    assert num_elements(model.trainable_variables) == CAFFENET_PARAMETERS


def test_shapes():
    model = outline(caffenet)
    kernels = {
        v.path.split("/")[0]: tuple(v.shape)
        for v in model.trainable_variables
        if v.name == "kernel"
    }
    assert kernels == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
        "logits": (4096, 1000),
    }
    groups = {
        f"conv{i}": model.get_layer(f"conv{i}").groups for i in range(1, 6)
    }
    assert groups == {
        "conv1": 1,
        "conv2": 2,
        "conv3": 1,
        "conv4": 2,
        "conv5": 2,
    }


def test_maps_are_those_of_the_paper():
    model = outline(caffenet)
    for name, size in (("conv1", 55), ("lrn1", 27), ("lrn2", 13), ("pool5", 6)):
        assert model.get_layer(name).output.shape[1:3] == (size, size)


@pytest.mark.parametrize("dropout, layers", [(0.0, 0), (0.2, 2)])
def test_dropout_layers(dropout, layers):
    model = outline(caffenet, dropout=dropout)
    rates = [x.rate for x in model.layers if x.name.startswith("dropout")]
    assert rates == [dropout] * layers


def test_smallest_images():
    assert outline(caffenet, input_shape=(67, 67, 3)).output_shape[-1] == 1000
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        "channels) of at least 67 x 67. Received: input_shape=(66, 67, 3)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        caffenet(input_shape=(66, 67, 3))


def test_dropout_is_checked():
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        "Received: dropout=1.0"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        caffenet(dropout=1.0)
