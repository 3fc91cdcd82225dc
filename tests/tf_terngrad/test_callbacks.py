"""Callbacks with one worker: no harm; what they add to the logs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad.statistics import ExchangeStatistics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = RNG.normal(size=(64, 1)).astype(np.float32)


def _model(compression=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1, name="logits"),
        ]
    )
    compression = compression or tg.TernGrad()
    model.compile(
        tg.DistributedOptimizer(keras.optimizers.SGD(0.01), compression),
        "mse",
        jit_compile=False,
    )
    return model


def _fit(model, *callbacks, epochs=2):
    return model.fit(
        X,
        Y,
        16,
        epochs,
        verbose=0,
        shuffle=False,
        validation_data=(X, Y),
        callbacks=list(callbacks),
    ).history


def test_callbacks_change_nothing_for_one_worker():
    plain, watched = _model(), _model()
    expected = _fit(plain)
    history = _fit(
        watched,
        tg.callbacks.BroadcastVariables(),
        tg.callbacks.ReplicaCheck(),
        tg.callbacks.AverageStatistics(),
        tg.callbacks.MetricAverage(validation_examples=64),
    )
    assert history == expected
    for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_exchange_metrics_alone():
    history = _fit(_model(), tg.callbacks.ExchangeMetrics())
    assert history["bits_per_element"] == [0.0, 0.0]
    for name in ("zero_fraction", "saturation"):
        assert len(history[name]) == 2
        assert all(0.0 <= v < 1.0 for v in history[name])


def test_exchange_metrics_of_float_gradients():
    history = _fit(_model(tg.NoCompression()), tg.callbacks.ExchangeMetrics())
    assert "bits_per_element" in history
    assert "zero_fraction" not in history
    assert "saturation" not in history


def test_exchange_metrics_count_each_epoch_directly():
    # Gradients known, so that the counts are: 40 of 64 elements are 1 or -1
    # (they fire), the others 0; in the second step all are 0 but one outlier,
    # which is clipped.
    variable = keras.Variable(np.zeros(64, np.float32), name="w")
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(1.0), tg.TernGrad(clip_factor=2.5)
    )
    optimizer.build([variable])
    model = keras.Sequential()
    model.optimizer = optimizer
    callback = tg.callbacks.ExchangeMetrics()
    callback.set_model(model)
    signs = np.zeros(64, np.float32)
    signs[:40:2], signs[1:40:2] = 1.0, -1.0
    outlier = np.zeros(64, np.float32)
    outlier[7] = 5.0

    for _ in range(2):  # counters start again with each epoch
        callback.on_epoch_begin(0)
        optimizer.apply([tf.constant(signs)], [variable])
        optimizer.apply([tf.constant(outlier)], [variable])
        logs = {}
        callback.on_epoch_end(0, logs)
        assert logs == {
            "bits_per_element": 0.0,
            "zero_fraction": pytest.approx(1 - 41 / 128),
            "saturation": pytest.approx(1 / 128),
        }


def test_exchange_metrics_of_local_workers_count_all_of_them():
    statistics = ExchangeStatistics(2)
    g = [tf.ones([10]), tf.zeros([4])]
    tg.exchange(
        [g, g, g],
        [tf.Variable(tf.zeros([10])), tf.Variable(tf.zeros([4]))],
        tg.TernGrad(),
        workers=tg.LocalWorkers(3),
        statistics=statistics,
    )
    np.testing.assert_array_equal(statistics.num_elements, [30, 12])
    np.testing.assert_array_equal(statistics.num_nonzero, [30, 0])
    assert statistics.totals() == (42, 30, 0)
    statistics.reset()
    assert statistics.totals() == (0, 0, 0)


@pytest.mark.parametrize("logs", [None, {}])
def test_metric_average_without_logs(logs):
    tg.callbacks.MetricAverage().on_epoch_end(0, logs)
    assert not logs


def test_exchange_metrics_without_distributed_optimizer():
    model = _model()
    optimizer = keras.optimizers.SGD(0.01)
    model.compile(optimizer, "mse")
    with pytest.raises(TypeError) as error:
        _fit(model, tg.callbacks.ExchangeMetrics())
    assert str(error.value) == (
        "ExchangeMetrics expects a model compiled with "
        f"tg.DistributedOptimizer. Received: optimizer={optimizer!r}"
    )


def test_replica_check_interval():
    with pytest.raises(ValueError) as error:
        tg.callbacks.ReplicaCheck(every_n_epochs=0)
    assert str(error.value) == (
        "Invalid value for argument every_n_epochs. Expected an integer >= 1. "
        "Received: every_n_epochs=0"
    )
