import re

import pytest

from models.vgg_a import vgg_a
from tests.models.outline import num_elements, outline, statistics

VGG_A_PARAMETERS = 132_863_336  # Simonyan and Zisserman 2015: 133 million


def test_number_of_parameters():
    model = outline(vgg_a)
    assert num_elements(model.trainable_variables) == VGG_A_PARAMETERS
    assert num_elements(statistics(model)) == 5_504


def test_weight_layers():
    kernels = [v for v in outline(vgg_a).trainable_variables if v.ndim > 1]
    filters = [v.shape[-1] for v in kernels]
    assert filters == [64, 128, *[256] * 2, *[512] * 4, 4096, 4096, 1000]
    assert all(tuple(v.shape[:2]) == (3, 3) for v in kernels[:8])


@pytest.mark.parametrize("dropout, layers", [(0.0, 0), (0.5, 2)])
def test_dropout_layers(dropout, layers):
    model = outline(vgg_a, dropout=dropout)
    rates = [x.rate for x in model.layers if x.name.startswith("dropout")]
    assert rates == [dropout] * layers


@pytest.mark.parametrize("shape", [(31, 224, 3), (224, 31, 3), (224, 224)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 32 x 32. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        vgg_a(input_shape=shape)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_checked(dropout):
    message = (
        "Invalid value for argument dropout. Expected a rate in [0, 1). "
        f"Received: dropout={dropout}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        vgg_a(dropout=dropout)
