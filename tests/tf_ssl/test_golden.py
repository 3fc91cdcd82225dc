"""Files that commit d90a87e saved, before tf_ssl was a house with rooms."""

import pathlib

import keras
import numpy as np
import pytest

import tf_ssl

_GOLDEN = pathlib.Path(__file__).parent / "golden"
# File -> shape of the input that it was called with.
SHAPES = {
    "regularizers": (2, 8, 8, 3),
    "group_lasso_optimizer": (2, 5, 3),
    "adaptive_force": (2, 8, 8, 3),
    "sparse_layers": (2, 8, 8, 4),
    "shrunk_bidirectional": (2, 6, 4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_loads_and_computes_what_it_did(name):
    model = keras.models.load_model(_GOLDEN / f"{name}.keras")
    x = np.random.default_rng(1).normal(size=SHAPES[name]).astype("float32")
    expected = np.load(_GOLDEN / "outputs.npz")[f"{name}_outputs"]
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5)


def test_optimizers_are_bound_again():
    model = keras.models.load_model(_GOLDEN / "group_lasso_optimizer.keras")
    optimizer = model.optimizer
    assert isinstance(optimizer, tf_ssl.GroupLassoOptimizer)
    assert int(optimizer.iterations) == 1
    x, y = np.ones((4, 5, 3)), np.ones((4, 2))
    model.fit(x, y, verbose=0)
    assert float(optimizer.group_lasso) > 0
    model = keras.models.load_model(_GOLDEN / "adaptive_force.keras")
    assert isinstance(model.optimizer, tf_ssl.AdaptiveForce)
    model.fit(np.ones((4, 8, 8, 3)), y, verbose=0)
    assert int(model.optimizer.iterations) == 2
