import re

import numpy as np
import pytest

from models.convnet import convnet
from tests.models.outline import outline

CONVNET_PARAMETERS = 1_068_298  # of TensorFlow's tutorial on CIFAR-10


def test_number_of_parameters():
    assert outline(convnet).count_params() == CONVNET_PARAMETERS


def test_shapes():
    model = outline(convnet)
    assert {v.path: tuple(v.shape) for v in model.trainable_variables} == {
        "conv1/kernel": (5, 5, 3, 64),
        "conv1/bias": (64,),
        "conv2/kernel": (5, 5, 64, 64),
        "conv2/bias": (64,),
        "fc3/kernel": (2304, 384),
        "fc3/bias": (384,),
        "fc4/kernel": (384, 192),
        "fc4/bias": (192,),
        "logits/kernel": (192, 10),
        "logits/bias": (10,),
    }


def test_order_of_pooling_and_normalization():
    names = [layer.name for layer in outline(convnet).layers]
    assert (
        names
        == (
            "images conv1 pool1 lrn1 conv2 lrn2 pool2 flatten fc3 fc4 logits"
        ).split()
    )


def test_initial_weights():
    weights = {v.path: v.numpy() for v in convnet(seed=0).trainable_variables}
    # A normal distribution cut at two standard deviations has 0.88 of it.
    for name, stddev, bias in (
        ("conv1", 0.05, 0.0),
        ("conv2", 0.05, 0.1),
        ("fc3", 0.04, 0.1),
        ("fc4", 0.04, 0.1),
        ("logits", 1 / 192, 0.0),
    ):
        kernel = weights[f"{name}/kernel"]
        assert kernel.std() == pytest.approx(0.88 * stddev, rel=0.05)
        np.testing.assert_allclose(weights[f"{name}/bias"], bias)


@pytest.mark.parametrize("shape", [(7, 24, 3), (24, 7, 3), (24, 24)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 8 x 8. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convnet(input_shape=shape)
