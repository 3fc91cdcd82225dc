"""What a threshold zeroes, and what it leaves."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import fill
from tf_ssl.shrinking.rebuild import Rebuild

L = keras.layers


def _two_producers():
    inputs = keras.Input((5,))
    x = L.Add()([L.Dense(4, name="a")(inputs), L.Dense(4, name="b")(inputs)])
    return fill(keras.Model(inputs, L.Dense(2, name="out")(x)))


def test_the_bias_of_a_kernel_that_lives_stays():
    """Unit 0: a makes nothing of it, b does, and so b's small bias counts."""
    model = _two_producers()
    kernel = model.get_layer("a").kernel
    kernel.assign(kernel.numpy() * [1e-4, 1, 1, 1])
    bias = model.get_layer("b").bias
    bias.assign([3e-4, 0.2, 0.3, 0.4])
    small = tf_ssl.shrink(model, threshold=1e-3)
    (structure,) = (s for s in small.shrink_report.units if "input" not in s)
    assert small.shrink_report.units[structure] == (4, 4)
    np.testing.assert_array_equal(small.get_layer("b").bias, bias)


def test_a_small_unit_of_both_goes_with_its_biases():
    model = _two_producers()
    for name in "ab":
        layer = model.get_layer(name)
        layer.kernel.assign(layer.kernel.numpy() * [1e-5, 1, 1, 1])
        layer.bias.assign([3e-4, 0.2, 0.3, 0.4])
    small = tf_ssl.shrink(model, threshold=1e-3)
    assert small.get_layer("a").units == 3
    # Biases went with their kernels: nothing was folded.
    np.testing.assert_array_equal(
        small.get_layer("out").bias, model.get_layer("out").bias
    )


def test_dead_of_all_is_dead_of_each():
    model = fill(
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                L.Conv2D(5, 3, name="c"),
                L.BatchNormalization(),
                L.Flatten(),
                L.Dense(7, name="d"),
                L.Dense(2),
            ]
        )
    )
    structures = tf_ssl.find_structures(model)
    structures["c/filters"].zero([1, 4])
    for part in structures["d/units"].of(["in"]):
        part.zero([0])
    for threshold in (0.0, 0.5, 2.0):
        dead = structures.dead(threshold)
        assert list(dead) == [s.name for s in structures]
        for structure in structures:
            np.testing.assert_array_equal(
                dead[structure.name], structure.dead(threshold)
            )
    assert structures.dead()["d/units"].sum() == 1


def test_length_must_be_a_positive_integer():
    with pytest.raises(ValueError) as error:
        tf_ssl.shrink(_two_producers(), length=0)
    assert str(error.value) == (
        "Invalid value for argument length. Expected an integer >= 1. "
        "Received: length=0"
    )


def _behind_a_normalization():
    inputs = keras.Input((5,))
    x = L.Dense(6, name="wide")(inputs)
    x = L.LayerNormalization(name="norm")(x)
    x = L.Dense(7, name="inner", activation="relu")(x)
    return fill(keras.Model(inputs, L.Dense(2)(x)))


def test_width_behind_a_normalization_goes_only_if_results_may_change():
    model = _behind_a_normalization()
    assert "wide/units" not in [s.name for s in tf_ssl.find_structures(model)]
    structures = tf_ssl.find_structures(model, allow_inexact=True)
    structures["wide/units"].zero([0, 3])
    structures["inner/units"].zero([1])
    exact = tf_ssl.shrink(model)
    assert exact.get_layer("wide").units == 6
    assert exact.get_layer("inner").units == 6
    small = tf_ssl.shrink(model, allow_inexact=True)
    assert small.get_layer("wide").units == 4
    assert small.get_layer("norm").gamma.shape == (4,)
    assert small.shrink_report.inexact == ["norm mixes all units of an example"]
    assert small.shrink_report.difference > 1e-3


def test_what_was_to_be_exact_is_checked_beside_what_is_not(monkeypatch):
    model = _behind_a_normalization()
    structures = tf_ssl.find_structures(model, allow_inexact=True)
    structures["wide/units"].zero([0])
    structures["inner/units"].zero([1])
    slice_of = Rebuild.slice

    def wrong(self, variable, value):
        value = slice_of(self, variable, value)
        return 2 * value if variable.path == "inner/bias" else value

    monkeypatch.setattr(Rebuild, "slice", wrong)
    with pytest.raises(RuntimeError, match="The shrunk model differs by"):
        tf_ssl.shrink(model, allow_inexact=True)
