import re

import keras
import numpy as np
import pytest

import tf_ssl
from models.layers import LocalResponseNormalization

OPTIONS = {"depth_radius": 3, "bias": 1.5, "alpha": 0.25, "beta": 0.5}


def reference(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75):
    """The formula, channel by channel."""
    x = x.astype(np.float64)
    channels = x.shape[-1]
    y = np.empty_like(x)
    for c in range(channels):
        near = x[..., max(0, c - depth_radius) : c + depth_radius + 1]
        y[..., c] = x[..., c] / (bias + alpha * (near**2).sum(-1)) ** beta
    return y


@pytest.mark.parametrize("options", [{}, OPTIONS])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (1, 2, 2, 64)])
def test_formula(options, shape):
    x = np.random.default_rng(0).normal(size=shape, scale=3).astype("float32")
    y = LocalResponseNormalization(**options)(x)
    np.testing.assert_allclose(y, reference(x, **options), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_missing_channels_count_as_zero(options):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 9)).astype("float32")
    positions = [0, 3, 4, 8]
    gone = [c for c in range(9) if c not in positions]
    x[..., gone] = 0
    layer = LocalResponseNormalization(**options, positions=positions)
    np.testing.assert_allclose(
        layer(x[..., positions]),
        reference(x, **options)[..., positions],
        rtol=1e-5,
        atol=1e-6,
    )


def test_zero_channels_are_removed_exactly():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(9, 3, activation="relu", name="conv")(inputs)
    x = LocalResponseNormalization(**OPTIONS, name="lrn")(x)
    x = keras.layers.Conv2D(2, 3, name="last")(x)
    model = keras.Model(inputs, x)
    tf_ssl.find_structures(model)["conv/filters"].zero([1, 2, 5, 6, 7])
    small = tf_ssl.shrink(model)
    assert small.get_layer("lrn").positions == [0, 3, 4, 8]
    assert tf_ssl.multiply_adds(small)["lrn"] == 0
    # Removed twice: positions of positions.
    tf_ssl.find_structures(small)["conv/filters"].zero([1])
    smaller = tf_ssl.shrink(small)
    assert smaller.get_layer("lrn").positions == [0, 4, 8]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(small(x)[:0], model(x)[:0])
    np.testing.assert_allclose(smaller(x), small(x), rtol=1e-5, atol=1e-5)


def test_saving(tmp_path):
    images = keras.Input((4, 4, 8))
    model = keras.Model(images, LocalResponseNormalization(**OPTIONS)(images))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    config = loaded.layers[-1].get_config()
    assert {name: config[name] for name in OPTIONS} == OPTIONS
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 8)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("depth_radius", 0, "at least 1"),
        ("bias", 0.0, "a positive number"),
        ("alpha", -1.0, "a positive number"),
        ("beta", float("nan"), "a positive number"),
        ("positions", [2, 1], "ascending integers >= 0"),
        ("positions", [-1, 1], "ascending integers >= 0"),
    ],
)
def test_arguments(name, value, expected):
    message = (
        f"Invalid value for argument {name}. Expected {expected}. "
        f"Received: {name}={value}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LocalResponseNormalization(**{name: value})
