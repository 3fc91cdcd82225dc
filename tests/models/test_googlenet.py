import re

import pytest

from models.googlenet import googlenet
from tests.models.outline import num_elements, outline, statistics

# Of GoogLeNet without auxiliary classifiers 6,998,552; its nine convolutions
# of 5 x 5 are of 3 x 3 in TernGrad's code.
GOOGLENET_PARAMETERS = 6_998_552 - sum(
    (25 - 9) * reduced * filters
    for reduced, filters in (
        (16, 32),
        (32, 96),
        (16, 48),
        (24, 64),
        (24, 64),
        (32, 64),
        (32, 128),
        (32, 128),
        (48, 128),
    )
)


@pytest.fixture(scope="module")
def model():
    return outline(googlenet)


def test_number_of_parameters(model):
    assert GOOGLENET_PARAMETERS == 6_617_624
    assert num_elements(model.trainable_variables) == GOOGLENET_PARAMETERS
    assert num_elements(statistics(model)) == 14_560


def test_maps_are_those_of_the_paper(model):
    for name, size, filters in (
        ("module3a", 28, 256),
        ("module3b", 28, 480),
        ("module4a", 14, 512),
        ("module4d", 14, 528),
        ("module4e", 14, 832),
        ("module5b", 7, 1024),
    ):
        shape = model.get_layer(name).output.shape
        assert shape == (None, size, size, filters)


@pytest.mark.parametrize("dropout, rates", [(0.0, []), (0.08, [0.08])])
def test_dropout_layers(dropout, rates):
    model = outline(googlenet, input_shape=(32, 32, 3), dropout=dropout)
    assert [x.rate for x in model.layers if x.name == "dropout"] == rates


@pytest.mark.parametrize("shape", [(31, 224, 3), (224, 31, 3), (224, 224)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 32 x 32. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        googlenet(input_shape=shape)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_checked(dropout):
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        f"Received: dropout={dropout}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        googlenet(dropout=dropout)
