import re

import numpy as np
import pytest

from models import resnet_cifar
from tests.models.outline import num_elements, outline, statistics

# He et al. 2016, table 6: 0.27, 0.46 and 0.85 million.
PARAMETERS = {"resnet20": 269_722, "resnet32": 464_154, "resnet56": 853_018}
# Two 1 x 1 convolutions, each with scale and shift.
OF_SHORTCUTS = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    build = getattr(resnet_cifar, name)
    model = outline(build)
    assert model.name == name
    assert num_elements(model.trainable_variables) == PARAMETERS[name]
    convolutions = [v for v in model.trainable_variables if v.ndim == 4]
    # One layer is dense.
    assert len(convolutions) + 1 == int(name.removeprefix("resnet"))
    model = outline(build, shortcut="B")
    assert (
        num_elements(model.trainable_variables)
        == PARAMETERS[name] + OF_SHORTCUTS
    )


@pytest.mark.parametrize(
    "name, shortcut, elements",
    [
        ("resnet20", "A", 1_376),
        ("resnet20", "B", 1_568),
        ("resnet32", "A", 2_272),
        ("resnet32", "B", 2_464),
        ("resnet56", "A", 4_064),
        ("resnet56", "B", 4_256),
    ],
)
def test_moving_statistics(name, shortcut, elements):
    model = outline(getattr(resnet_cifar, name), shortcut=shortcut)
    assert num_elements(statistics(model)) == elements


def test_maps_are_those_of_the_paper():
    model = outline(resnet_cifar.resnet20)
    for name, size, filters in (
        ("stem_relu", 32, 16),
        ("stage1_block3_relu", 32, 16),
        ("stage2_block3_relu", 16, 32),
        ("stage3_block3_relu", 8, 64),
    ):
        shape = model.get_layer(name).output.shape
        assert shape == (None, size, size, filters)


def test_shortcut_a_takes_every_second_pixel_and_pads_channels():
    model = resnet_cifar.resnet_cifar(1, (16, 16, 3), seed=0)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    layers = ("stage1_block1_relu", "stage2_block1_shortcut_concat")
    x, shortcut = (
        type(model)(model.input, model.get_layer(name).output).predict(
            images.astype("float32"), verbose=0
        )
        for name in layers
    )
    want = np.concatenate([x[:, ::2, ::2], np.zeros_like(x[:, ::2, ::2])], -1)
    np.testing.assert_array_equal(shortcut, want)


def test_relu_comes_after_the_sum():
    model = outline(resnet_cifar.resnet20)
    names = [layer.name for layer in model.layers]
    for block in (1, 2, 3):
        add = model.get_layer(f"stage1_block{block}_add")
        assert names[names.index(add.name) - 1] == (f"stage1_block{block}_2_bn")
        assert f"stage1_block{block}_2_relu" not in names


@pytest.mark.parametrize("shape", [(15, 32, 3), (32, 15, 3), (32, 32)])
def test_small_images(shape):
    message = (
        "Invalid value for argument input_shape. Expected (height, width, "
        f"channels) of at least 16 x 16. Received: input_shape={shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet_cifar.resnet20(input_shape=shape)


def test_unknown_shortcut():
    message = (
        "Invalid value for argument shortcut. Expected one of {'A', 'B'}. "
        "Received: shortcut='C'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet_cifar.resnet32(shortcut="C")
