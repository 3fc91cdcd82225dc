"""Metrics of Keras optimizers, against the steps that they make."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.penalties.optimizers import inner_metric

optimizers = keras.optimizers


class Renamed(optimizers.Adam):
    """Makes the update of Adam."""


class Changed(optimizers.Adam):
    """Makes another."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign_sub(gradient * learning_rate)


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (optimizers.SGD(), optimizers.SGD),
        (optimizers.AdamW(), optimizers.Adam),
        (Renamed(), optimizers.Adam),
        (Changed(), None),
        (optimizers.Lion(), None),
        (optimizers.Ftrl(), None),
        (optimizers.Lamb(), None),
        (optimizers.Adadelta(), None),
        (optimizers.Adafactor(), None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_kind(optimizer, expected):
    assert inner_metric.kind(optimizer) is expected


@pytest.mark.parametrize(
    "optimizer, steps, rtol",
    [
        (optimizers.Adam(0.01, epsilon=0.3), 3, 1e-6),
        (optimizers.Adam(0.01, epsilon=0.3, amsgrad=True), 3, 1e-6),
        (optimizers.AdamW(0.01, weight_decay=0.0), 3, 1e-6),
        (optimizers.Adamax(0.01), 3, 1e-6),
        (optimizers.RMSprop(0.01), 3, 1e-6),
        (optimizers.RMSprop(0.01, centered=True, epsilon=0.1), 3, 1e-6),
        (optimizers.Adagrad(0.01), 3, 1e-6),
        # Its momentum coefficients take their time.
        (optimizers.Nadam(0.01), 120, 5e-4),
    ],
    ids=[
        "adam", "amsgrad", "adamw", "adamax", "rmsprop", "centered", "adagrad",
        "nadam",
    ],
)  # fmt: skip
def test_steps_are_gradients_over_the_metric(optimizer, steps, rtol):
    """Under a constant gradient g every step is -learning_rate * g / d.

    To float32: so Keras casts decay rates.
    """
    variable = keras.Variable(np.ones(4), dtype="float64", name="w")
    gradient = tf.constant([1e-3, -0.1, 1.0, 30.0], tf.float64)
    metric = []
    optimizer.build([variable])
    update = optimizer._backend_update_step

    def spied(*args):
        update(*args)
        metric[:] = [inner_metric.diagonal(optimizer, variable)]

    optimizer._backend_update_step = spied
    for _ in range(steps):
        before = np.array(variable)
        optimizer.apply([gradient], [variable])
    moved = np.array(variable) - before
    rate = float(np.float32(0.01))
    np.testing.assert_allclose(
        moved * metric[0].numpy(), -rate * gradient.numpy(), rtol=rtol
    )


def test_sgd_has_none():
    variable = keras.Variable(np.ones(4), name="w")
    sgd = optimizers.SGD(momentum=0.9)
    sgd.build([variable])
    assert inner_metric.diagonal(sgd, variable) is None


def _stepped(optimizer):
    """After two steps: optimizer, variable, its value before the last."""
    variable = keras.Variable([1.0, -2.0, 0.5], dtype="float64", name="w")
    for gradient in ([0.3, -1.0, 2.0], [1.0, 1.0, -1.0]):
        before = np.array(variable)
        optimizer.apply([tf.constant(gradient, tf.float64)], [variable])
    return variable, before


def test_momentum_becomes_the_movement():
    sgd = optimizers.SGD(0.1, momentum=0.9)
    variable, before = _stepped(sgd)
    point = inner_metric.point(sgd, variable)
    np.testing.assert_array_equal(point, variable)
    after = np.array([0.1, 0.0, -0.2])
    inner_metric.finish(sgd, variable, tf.constant(after), point - after)
    np.testing.assert_array_equal(variable, after)
    np.testing.assert_allclose(sgd.momentums[0], after - before, rtol=1e-12)


def test_momentum_of_rmsprop_becomes_the_movement():
    rmsprop = optimizers.RMSprop(0.1, momentum=0.9)
    variable, before = _stepped(rmsprop)
    point = inner_metric.point(rmsprop, variable)
    after = np.array([0.1, 0.0, -0.2])
    inner_metric.finish(rmsprop, variable, tf.constant(after), point - after)
    np.testing.assert_array_equal(variable, after)
    np.testing.assert_allclose(
        rmsprop._momentums[0], before - after, rtol=1e-12
    )


def test_nesterov_steps_as_fista():
    sgd = optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    variable, _ = _stepped(sgd)
    # The point x that the look-ahead w = x + 0.9 v hides, from w and v.
    x = np.array(variable) - 0.9 * np.array(sgd.momentums[0])
    before = np.array(variable)
    gradient = np.array([0.5, 0.5, 0.5])
    sgd.apply([tf.constant(gradient)], [variable])
    point = inner_metric.point(sgd, variable)
    rate = float(np.float32(0.1))
    np.testing.assert_allclose(point, before - rate * gradient, rtol=1e-12)
    after = np.array([0.1, 0.0, -0.2])
    inner_metric.finish(sgd, variable, tf.constant(after), point - after)
    velocity = (after - x) * [1, 0, 1]  # What is at zero stops.
    np.testing.assert_allclose(sgd.momentums[0], velocity, rtol=1e-7)
    np.testing.assert_allclose(variable, after + 0.9 * velocity, rtol=1e-7)
    assert float(variable[1]) == 0


def test_moments_of_adam_are_kept():
    adam = optimizers.Adam(0.1)
    variable, _ = _stepped(adam)
    kept = [np.array(v) for v in adam.variables]
    inner_metric.finish(adam, variable, tf.zeros([3], tf.float64), variable)
    np.testing.assert_array_equal(variable, np.zeros(3))
    for value, after in zip(kept, adam.variables, strict=True):
        np.testing.assert_array_equal(value, after)
