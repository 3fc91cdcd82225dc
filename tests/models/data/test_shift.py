"""Tests of models/data/shift.py."""

import numpy as np
import pytest

from models.data.shift import textured


def test_is_the_image_against_a_texture():
    black, white = np.zeros((2, 3, 8, 9, 1)), np.ones((3, 8, 9, 1))
    on_black, again = textured(black[0]), textured(black[1])
    np.testing.assert_array_equal(on_black, again)
    np.testing.assert_allclose(textured(white), 1 - on_black, atol=1e-6)
    assert on_black.dtype == np.float32
    assert on_black.min() >= 0 and on_black.max() <= 1
    assert on_black.std(axis=(1, 2, 3)).min() > 0.05
    assert (on_black[0] != on_black[1]).mean() > 0.9
    assert (textured(black[0], seed=1) != on_black).mean() > 0.9


def test_textures_are_smooth():
    texture = textured(np.zeros((4, 28, 28, 1)))
    steps = np.abs(np.diff(texture, axis=1)).max()
    assert steps <= 3 / 27 + 1e-6  # three cells of the grid over 27 steps


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((3, 4, 4)),
            "Invalid value for argument images. Expected [images, height, "
            "width, channels], not empty. Received: shape (3, 4, 4)",
        ),
        (
            np.full((1, 4, 4, 1), 255.0),
            "Invalid value for argument images. Expected values in [0, 1]. "
            "Received: values in [255, 255]",
        ),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(ValueError) as error:
        textured(images)
    assert str(error.value) == message
