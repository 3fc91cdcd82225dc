import re

import keras
import numpy as np
import pytest

from models.run import optimizers


@pytest.mark.parametrize(
    "name, want",
    [
        ("constant", lambda t: 0.1),
        ("polynomial", lambda t: 0.1 * np.sqrt(1 - t / 100)),
        ("cosine", lambda t: 0.05 * (1 + np.cos(np.pi * t / 100))),
        ("exponential", lambda t: 0.1 * 0.5 ** (t // 30)),
        ("multistep", lambda t: 0.1 * 0.5 ** ((t >= 1) + (t >= 64))),
    ],
)
def test_schedule(name, want):
    schedule = optimizers.schedule(
        name,
        0.1,
        steps=100,
        decay_rate=0.5,
        decay_steps=30,
        milestones=(1, 64),
    )
    for t in (0, 1, 29, 30, 63, 64, 99, 100):
        got = schedule(t) if callable(schedule) else schedule
        np.testing.assert_allclose(float(got), want(t), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_optimizer_decays_kernels_alone(name):
    kernel = keras.Variable(np.full(3, 2.0), name="kernel")
    bias = keras.Variable(np.full(3, 2.0), name="bias")
    optimizer = optimizers.build(name, 0.1, weight_decay=0.01)
    zeros = np.zeros(3, "float32")
    optimizer.apply([zeros, zeros], [kernel, bias])
    np.testing.assert_allclose(kernel.numpy(), 2 - 0.1 * 0.01 * 2, rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), 2)


def test_momentum():
    for name, momentum, nesterov in (
        ("sgd", 0.0, False),
        ("momentum", 0.8, False),
        ("nesterov", 0.8, True),
    ):
        optimizer = optimizers.build(name, 0.1, momentum=0.8)
        assert isinstance(optimizer, keras.optimizers.SGD)
        assert optimizer.momentum == momentum
        assert optimizer.nesterov == nesterov
        assert optimizer.weight_decay is None


@pytest.mark.parametrize("milestones", [(), (0, 5), (5, 5), (6, 5)])
def test_milestones_that_do_not_rise(milestones):
    message = (
        "Invalid value for argument milestones. Expected one or more integers "
        f">= 1 that rise. Received: milestones={list(milestones)}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizers.schedule("multistep", 0.1, 10, milestones=milestones)


def test_unknown_optimizer():
    message = (
        "Invalid value for argument name. Expected one of {'adadelta', "
        "'adam', 'adamw', 'lamb', 'momentum', 'nesterov', 'sgd'}. Received: "
        "name='sdg'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizers.build("sdg", 0.1)


def test_unknown_schedule():
    message = (
        "Invalid value for argument name. Expected one of {'constant', "
        "'cosine', 'exponential', 'multistep', 'polynomial'}. Received: "
        "name='linear'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizers.schedule("linear", 0.1, 10)


def test_exponential_after_a_while():
    schedule = optimizers.schedule(
        "exponential", 0.1, 100, decay_rate=0.5, decay_steps=10, hold_steps=15
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    for t in (0, 10, 24, 25, 34, 35, 99):
        want = 0.1 * 0.5 ** (max(0, t - 15) // 10)
        for each in (schedule, again):
            np.testing.assert_allclose(float(each(t)), want, rtol=1e-5)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_clipping_and_averages(name):
    optimizer = optimizers.build(name, 0.1, global_clipnorm=5.0, ema=0.75)
    assert optimizer.global_clipnorm == 5.0
    assert optimizer.use_ema and optimizer.ema_momentum == 0.75
    plain = optimizers.build(name, 0.1)
    assert plain.global_clipnorm is None and not plain.use_ema


def test_adadelta_is_that_of_bidaf():
    optimizer = optimizers.build("adadelta", 0.5)
    assert (optimizer.rho, optimizer.epsilon) == (0.95, 1e-8)
