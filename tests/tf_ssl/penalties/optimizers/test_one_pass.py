"""Compiled arithmetic of the group Lasso, against the same one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_ssl
from tf_ssl.penalties.optimizers import one_pass as one_pass_lib
from tf_ssl.penalties.optimizers.one_pass import one_pass


def test_small_tensors_stay_as_they_are():
    def function(x):
        return x + 1

    assert one_pass(function, 1000) is function
    compiled = one_pass(function, 1 << 20)
    assert compiled is not function
    assert compiled(tf.constant(2.0)) == 3.0


def trained(dtype, **arguments):
    """Weights after three steps on gradients that are given."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 5], dtype=dtype)
    x = layers.LSTM(7, return_sequences=True, name="a", dtype=dtype)(inputs)
    x = layers.GRU(6, name="b", dtype=dtype)(x)
    x = layers.Dense(3, dtype=dtype)(x)
    model = keras.Model(inputs, x)
    optimizer = tf_ssl.GroupLassoOptimizer(
        keras.optimizers.SGD(0.5),
        tf_ssl.find_structures(model),
        0.02,
        update="subgradient",
        threshold=0.05,
        **arguments,
    )
    variables = model.trainable_variables
    optimizer.build(variables)
    random = np.random.default_rng(0)

    @tf.function
    def step(gradients):
        optimizer.apply(gradients, variables)

    for _ in range(3):
        step(
            [
                tf.constant(0.1 * random.normal(size=v.shape), dtype)
                for v in variables
            ]
        )
    return [v.numpy() for v in variables]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"clip": "inside", "double_count": True}, {"threshold_all": True}],
)
def test_same_weights(monkeypatch, arguments, dtype):
    expected = trained(dtype, **arguments)
    monkeypatch.setattr(one_pass_lib, "_LARGE", 1)
    weights = trained(dtype, **arguments)
    assert any((w == 0).any() for w in weights)
    for a, b in zip(expected, weights, strict=True):
        np.testing.assert_array_equal(a == 0, b == 0)
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
