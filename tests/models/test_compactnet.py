"""Tests of models/compactnet.py."""

import keras
import numpy as np
import pytest

import tf_ssl
from models.compactnet import compactnet
from tests.models.outline import num_elements, outline


def test_number_of_parameters():
    large = outline(compactnet)
    # Stem, modules (1x1, three branches of 3x3, scales and shifts), logits.
    expected, channels = 7 * 7 * 3 * 64 + 2 * 64, 64
    for filters in (48, 48, 96, 96, 144, 144, 168, 168):
        expected += channels * filters + 27 * filters**2 + 8 * filters
        channels = 3 * filters
    expected += channels * 1000 + 1000
    assert num_elements(large.trainable_variables) == expected == 4_100_136
    assert abs(expected / 4.1e6 - 1) < 0.001


def test_small_size():
    model = compactnet((32, 32, 3), 10, seed=0)
    assert num_elements(model.trainable_variables) == 206_330
    assert model(np.zeros((2, 32, 32, 3), np.float32)).shape == (2, 10)
    assert model.get_layer("module4b").output.shape == (None, 8, 8, 144)
    assert compactnet((28, 28, 1), 10).output_shape == (None, 10)


def test_seed_decides_the_weights():
    one, same = (compactnet((16, 16, 3), 10, seed=1) for _ in range(2))
    other = compactnet((16, 16, 3), 10, seed=2)
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.get_weights()[0] != other.get_weights()[0]).any()


def test_branches_differ_and_shrink():
    model = compactnet((16, 16, 3), 10, seed=1)
    branches = [
        model.get_layer(f"module3a_{name}_conv")
        for name in ("plain", "dilated", "transposed")
    ]
    assert [type(b) for b in branches] == [
        *(keras.layers.Conv2D, keras.layers.Conv2D),
        keras.layers.Conv2DTranspose,
    ]
    assert branches[1].dilation_rate == (2, 2)
    structures = tf_ssl.find_structures(model)
    tf_ssl.zero_random(structures, 0.5)
    small = tf_ssl.shrink(model)
    assert small.shrink_report.difference < 1e-5
    assert small.count_params() < 0.35 * model.count_params()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"size": "tiny"},
            "Invalid value for argument size. Expected one of {'large', "
            "'small'}. Received: size='tiny'",
        ),
        (
            {"input_shape": (32, 32, 3), "size": "large"},
            "Invalid value for argument input_shape. Expected (height, "
            "width, channels) of at least 64 x 64. Received: "
            "input_shape=(32, 32, 3)",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        compactnet(**arguments)
    assert str(error.value) == message
