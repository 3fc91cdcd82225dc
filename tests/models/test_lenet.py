import re

import pytest

from models.lenet import lenet

LENET_PARAMETERS = 431_080  # TernGrad's LeNet on MNIST


def test_number_of_parameters():
    assert lenet().count_params() == LENET_PARAMETERS


def test_shapes():
    shapes = {v.path: tuple(v.shape) for v in lenet().trainable_variables}
    assert shapes == {
        "conv1/kernel": (5, 5, 1, 20),
        "conv1/bias": (20,),
        "conv2/kernel": (5, 5, 20, 50),
        "conv2/bias": (50,),
        "hidden/kernel": (800, 500),
        "hidden/bias": (500,),
        "logits/kernel": (500, 10),
        "logits/bias": (10,),
    }


@pytest.mark.parametrize("shape", [(15, 28, 1), (28, 15, 1), (28, 28)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 16 x 16. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lenet(input_shape=shape)
