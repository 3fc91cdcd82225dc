import re

import numpy as np
import pytest

from models.resnet50 import resnet50
from tests.models.outline import num_elements, outline, statistics

RESNET50_PARAMETERS = 25_557_032  # He et al. 2016: 25.6 million


@pytest.fixture(scope="module")
def model():
    return outline(resnet50)


def test_number_of_parameters(model):
    assert num_elements(model.trainable_variables) == RESNET50_PARAMETERS
    assert num_elements(statistics(model)) == 53_120


def test_maps_are_those_of_the_paper(model):
    for name, size, filters in (
        ("pool1", 56, 64),
        ("stage2_block3_relu", 56, 256),
        ("stage3_block4_relu", 28, 512),
        ("stage4_block6_relu", 14, 1024),
        ("stage5_block3_relu", 7, 2048),
    ):
        shape = model.get_layer(name).output.shape
        assert shape == (None, size, size, filters)


def test_blocks_begin_as_the_identity():
    model = resnet50(input_shape=(32, 32, 3), num_classes=3, seed=0)
    last = [
        v.numpy()
        for v in model.trainable_variables
        if v.path.endswith("_3_bn/gamma")
    ]
    assert len(last) == 16
    for gamma in last:
        np.testing.assert_array_equal(gamma, 0)


@pytest.mark.parametrize("shape", [(31, 224, 3), (224, 31, 3), (224, 224)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 32 x 32. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet50(input_shape=shape)
