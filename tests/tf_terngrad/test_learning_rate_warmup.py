"""Tests of tf_terngrad/callbacks/learning_rate_warmup.py."""

import keras
import numpy as np
import pytest

import tf_terngrad as tg
from tf_terngrad.callbacks import LearningRateWarmup


def fit(optimizer, warmup, steps=6, initial=0):
    """Rates of the updates."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(initial)
    rates = []

    class See(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate.numpy()))

    model.fit(
        np.zeros((steps, 2)),
        np.zeros((steps, 1)),
        batch_size=1,
        verbose=0,
        callbacks=[warmup, See()],
    )
    return rates


def test_rises_to_the_optimizers_rate():
    rates = fit(keras.optimizers.SGD(0.8), LearningRateWarmup(4, start=0.25))
    np.testing.assert_allclose(rates, [0.2, 0.35, 0.5, 0.65, 0.8, 0.8])


def test_goes_on_from_the_optimizers_step():
    warmup = LearningRateWarmup(4, learning_rate=0.8)
    rates = fit(keras.optimizers.SGD(0.4), warmup, steps=3, initial=2)
    np.testing.assert_allclose(rates, [0.4, 0.6, 0.8])


def test_leaves_the_rate_alone_after_it():
    rates = fit(keras.optimizers.SGD(0.1), LearningRateWarmup(4), 2, 10)
    np.testing.assert_allclose(rates, [0.1, 0.1])


def test_through_a_distributed_optimizer():
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(0.8), tg.NoCompression()
    )
    rates = fit(optimizer, LearningRateWarmup(2), steps=3)
    np.testing.assert_allclose(rates, [0.0, 0.4, 0.8])


def test_schedule_is_refused():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with pytest.raises(ValueError) as error:
        fit(keras.optimizers.SGD(schedule), LearningRateWarmup(2))
    assert str(error.value) == (
        "LearningRateWarmup sets a learning rate, and the optimizer has a "
        "schedule, ExponentialDecay: use a schedule that warms up, such as "
        "keras' CosineDecay(warmup_steps=...)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"steps": 0},
            "Invalid value for argument steps. Expected an integer >= 1. "
            "Received: steps=0",
        ),
        (
            {"steps": 1, "start": 2},
            "Invalid value for argument start. Expected a number in [0, 1]. "
            "Received: start=2",
        ),
        (
            {"steps": 1, "learning_rate": 0},
            "Invalid value for argument learning_rate. Expected a finite "
            "number > 0. Received: learning_rate=0",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        LearningRateWarmup(**arguments)
    assert str(error.value) == message


def test_unknown_scaling():
    with pytest.raises(ValueError) as error:
        tg.scaled_learning_rate(0.1, 2, 1, "square")
    assert str(error.value) == (
        "Invalid value for argument rule. Expected one of {'linear', 'sqrt'}. "
        "Received: rule='square'"
    )
