"""What benchmarks/ssl_lenet.py counts and how it judges it."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

import models

_ROOT = pathlib.Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "ssl_lenet", _ROOT / "benchmarks" / "ssl_lenet.py"
)
ssl_lenet = importlib.util.module_from_spec(_SPEC)
sys.modules["ssl_lenet"] = ssl_lenet  # dataclasses look it up
sys.path.append(str(_ROOT / "benchmarks"))  # as for a program there
_SPEC.loader.exec_module(ssl_lenet)


@pytest.fixture(scope="module")
def lenet():
    """3 and 12 filters; 20 and 40 weights per filter."""
    model = models.build("lenet", seed=0)
    kernels = {v.path: v for v in model.trainable_variables}
    conv1 = np.array(kernels["conv1/kernel"].numpy())
    conv1[0] = 0  # five of 25 positions
    conv1[..., 3:] = 0
    conv2 = np.array(kernels["conv2/kernel"].numpy())
    conv2[:, :, 2:] = 0  # two of 20 channels, of which
    conv2[:2, :, 1] = 0  # one has 15 of 25 positions
    conv2[..., 12:] = 0
    kernels["conv1/kernel"].assign(conv1)
    kernels["conv2/kernel"].assign(conv2)
    return model


def test_filters(lenet):
    assert ssl_lenet.filters(lenet) == (3, 12)


def test_weights_per_filter(lenet):
    assert ssl_lenet.weights_per_filter(lenet) == (20, 40)


def test_flop(lenet):
    assert ssl_lenet.flop(lenet, 4) == pytest.approx(
        (100 * 3 * 20 / (20 * 25), 100 * 12 * 40 / (50 * 500))
    )


def test_neurons():
    model = models.build("mlp", seed=0)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    values = [np.array(v.numpy()) for v in kernels]
    values[0][700:] = 0  # inputs
    values[0][:, 400:] = 0  # neurons that nothing reaches
    values[1][:10] = 0  # neurons that nothing reads
    values[1][:, 200:] = 0
    values[2][150:] = 0
    for kernel, value in zip(kernels, values, strict=True):
        kernel.assign(value)
    assert ssl_lenet.neurons(model) == (700, 390, 150, 10)


@pytest.mark.parametrize(
    "sizes, error, reached",
    [
        ((5, 19), 100 * (1 - np.float32(0.992)), True),
        ((5, 20), 0.5, False),
        ((6, 2), 0.5, False),
        ((5, 19), 0.81, False),
    ],
)
def test_reached(sizes, error, reached):
    row = ssl_lenet.ROWS["ssl_lenet2"]
    assert ssl_lenet.is_reached(row, sizes, error) == reached


def test_every_row_has_its_recipes():
    folder = _ROOT / "models" / "recipes"
    for row in ssl_lenet.ROWS.values():
        for recipe, _ in ssl_lenet.stages(row):
            assert (folder / f"{recipe}.flags").is_file()


def test_table():
    entry = {
        "row": "ssl_lenet3",
        "seed": 1,
        "sizes": [3, 11],
        "flop": [15.0, 3.3],
        "error": 0.95,
        "reached": True,
        "baseline_error": 0.83,
        "shrunk_error": 0.95,
        "shrunk_difference": 2e-7,
        "multiply_adds": [1000, 50],
    }
    text = ssl_lenet.table([entry])
    assert (
        "| LeNet 3 | filters | 3-12 | 1.00 | 15-3.6 | 3-11 | 0.95 | 15-3.3 "
        "| 1 | yes | 0.83 | 5.0 %, 0.95, 2e-07 |"
    ) in text
    assert "- LeNet 3: mean error 0.95 %, reached with 1 of 1 seeds" in text
