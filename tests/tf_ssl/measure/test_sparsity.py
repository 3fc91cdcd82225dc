"""Sparsity of kernels with planted zeros, counted by hand."""

import keras
import numpy as np
import pytest

from tests.tf_ssl.structures import group_reference as reference
from tf_ssl.measure.sparsity import count_zeros, model_sparsity, sparsity


@pytest.mark.parametrize("kind, shape, conv_groups", reference.KERNELS)
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_against_weight_by_weight(kind, shape, conv_groups, threshold):
    kernel = reference.kernel(shape)
    # A dead group of each sort, where there is more than one.
    kernel[..., 0] = 0.0
    kernel[0] = 0.0
    counts = count_zeros(
        kernel, kind, conv_groups, block=(1, 1), threshold=threshold
    )
    zeros = int((np.abs(kernel) <= threshold).sum())
    assert counts["element"] == (zeros, kernel.size)
    for name in ("column", "row"):
        norms, _, _ = reference.norms(kernel, name, kind, conv_groups)
        dead = sum(norm <= threshold for norm in norms.values())
        assert counts[name] == (dead, len(norms))
    if kind not in reference.GATES:
        assert counts["block"] == counts["element"]


def test_lenet_of_the_paper():
    # LeNet 4: conv2 keeps 41 of 500 columns, 50 rows.
    kernel = np.zeros([5, 5, 20, 50], np.float32)
    kernel.reshape(500, 50)[:41] = 1.0
    found = sparsity(kernel, block=(50, 5))
    assert found == {
        "element": 459 / 500,
        "column": 459 / 500,
        "row": 0.0,
        "block": 91 / 100,  # 41 columns reach into the ninth block of five
    }
    assert list(found) == ["element", "column", "row", "block"]


def test_model():
    model = keras.Sequential(
        [
            keras.Input([4, 4, 2]),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="fc"),
        ]
    )
    conv = np.ones([3, 3, 2, 2], np.float32)
    conv[..., 0] = 0.0
    conv[0, 0, 0, 1] = 0.0
    model.layers[0].kernel.assign(conv)
    fc = np.ones([8, 3], np.float32)
    fc[0] = 0.0
    model.layers[2].kernel.assign(fc)
    assert model_sparsity(model, block=(2, 9)) == {
        "conv/kernel": {
            "element": 19 / 36,
            "column": 1 / 18,
            "row": 1 / 2,
            "block": 0.0,
        },
        "fc/kernel": {"element": 1 / 8, "column": 1 / 8, "row": 0.0},
        "total": {
            "element": 22 / 60,
            "column": 2 / 26,
            "row": 1 / 5,
            "block": 0.0,
        },
    }


def test_nan_is_no_zero():
    assert sparsity(np.full([2, 2], np.nan))["element"] == 0.0


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_threshold(threshold):
    with pytest.raises(ValueError) as error:
        sparsity(np.ones([2, 2]), threshold=threshold)
    assert str(error.value) == (
        "Invalid value for argument threshold. Expected a finite number >= 0. "
        f"Received: threshold={threshold!r}"
    )


def test_block_must_divide_a_single_kernel():
    with pytest.raises(ValueError, match="that divide the 2 filters"):
        sparsity(np.ones([2, 2]), block=(3, 1))
