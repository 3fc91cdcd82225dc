"""Activations that are layers; types that round more than float32."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import difference, noise, shrunk

layers = keras.layers


@pytest.mark.parametrize("kind", [layers.LeakyReLU, layers.ReLU, layers.PReLU])
def test_a_layer_as_activation(kind):
    activation = kind()
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation=activation, name="d")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model(noise(1, 6))  # the activation is built when it is run
    if kind is layers.PReLU:
        activation.alpha.assign(np.linspace(0.1, 0.8, 8))
    structure = tf_ssl.find_structures(model)["d/units"]
    # Of constant units; what the activation makes of -1 is folded.
    model.get_layer("d").bias.assign(-np.ones(8))
    structure.slices[0].zero([0, 1])
    small = shrunk(model, noise(5, 6))
    assert small.get_layer("d").units == 6


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 5e-3), ("mixed_bfloat16", 4e-2)]
)
def test_short_types_round_more(policy, tolerance):
    inputs = keras.Input((16,))
    x = layers.Dense(
        16,
        activation="relu",
        bias_initializer="ones",
        dtype=policy,
        name="a",
    )(inputs)
    x = layers.Dense(16, dtype=policy, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2, dtype="float32")(x))
    tf_ssl.find_structures(model)["a/units"].slices[0].zero([0, 1, 2])
    small = tf_ssl.shrink(model)
    report = small.shrink_report
    assert small.get_layer("a").units == 13
    assert report.tolerance == tolerance >= report.difference
    assert difference(model, small, noise(20, 16)) <= tolerance
