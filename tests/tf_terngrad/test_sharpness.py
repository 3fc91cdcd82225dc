"""Tests of tf_terngrad/sharpness.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad.sharpness import plot_loss_line


def quadratic(curvature):
    """A model with one weight 1 and the loss curvature / 2 * (w - 1)^2."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    kernel = model.trainable_variables[0]

    def loss():
        return curvature / 2 * tf.reduce_sum((kernel.value - 1.0) ** 2 - 1e-6)

    return model, loss


@pytest.mark.parametrize("curvature", [1.0, 50.0])
def test_of_a_quadratic(curvature):
    model, loss = quadratic(curvature)
    model.trainable_variables[0].assign([[1.001]])
    box = 0.01 * 2.001
    start = curvature / 2 * (0.001**2 - 1e-6)
    top = curvature / 2 * ((0.001 + box) ** 2 - 1e-6)
    found = tg.sharpness(model, loss, 0.01)
    np.testing.assert_allclose(
        found, 100 * (top - start) / (1 + start), rtol=1e-3
    )
    np.testing.assert_array_equal(
        model.trainable_variables[0].numpy(), np.float32([[1.001]])
    )


def test_loss_that_is_not_finite():
    model, _ = quadratic(1.0)
    with pytest.raises(ValueError) as error:
        tg.sharpness(model, lambda: tf.constant(float("nan")))
    assert str(error.value) == (
        "Expected a finite loss. Received: nan at the weights, nan at the end "
        "of the ascent"
    )


def test_bad_arguments():
    model, loss = quadratic(1.0)
    with pytest.raises(ValueError) as error:
        tg.sharpness(model, loss, epsilon=0)
    assert str(error.value) == (
        "Invalid value for argument epsilon. Expected a finite number > 0. "
        "Received: epsilon=0"
    )


def test_line_between_two_models(tmp_path):
    models = [
        keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        for _ in range(2)
    ]
    for number, model in enumerate(models):
        for variable in model.variables:
            variable.assign(np.full(2, 1.0 + 2 * number))
    seen = []

    def loss(model):
        seen.append([w[0] for w in model.get_weights()])
        return sum(seen[-1])

    alphas = [-0.5, 0, 0.25, 1]
    losses = tg.loss_line(*models, loss, alphas)
    assert losses == [0.0, 4.0, 6.0, 12.0]
    assert seen[2] == [1.5] * 4
    assert models[0].get_weights()[0][0] == 1
    path = tmp_path / "line.png"
    plot_loss_line(path, alphas, {"train": losses})
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_line_between_models_of_other_shapes():
    one = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    two = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError) as error:
        tg.loss_line(one, two, lambda model: 0.0, [0.0])
    assert str(error.value) == (
        "Invalid value for argument second. Expected weights of the shapes "
        "[(2, 1), (1,)]. Received: [(2, 3), (3,)]"
    )
