"""Recurrent layers, their states, and what TimeDistributed wraps."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import noise, shrunk

layers = keras.layers


def test_bidirectional_reads_less():
    inputs = keras.Input((10, 4))
    x = layers.Dense(6, name="d")(inputs)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    tf_ssl.find_structures(model)["d/units"].zero([0, 1])
    small = shrunk(model, noise(3, 10, 4))
    assert small.get_layer("d").units == 4


@pytest.mark.parametrize(
    "units",
    [
        [],
        [0, 1],
    ],
)
def test_states_of_the_model_stay_as_they_are(units):
    inputs = keras.Input(batch_shape=(3, 10, 4))
    lstm = layers.LSTM(8, stateful=True, return_sequences=True)
    model = keras.Model(inputs, layers.Dense(2)(lstm(inputs)))
    model(noise(3, 10, 4))
    before = [state.numpy() for state in lstm.states]
    if units:
        tf_ssl.find_structures(model)[1].zero(units)
    for _ in range(2):
        small = tf_ssl.shrink(model)
        assert small.shrink_report.difference <= 1e-5
        for old, state in zip(before, lstm.states, strict=True):
            np.testing.assert_array_equal(old, state)


def test_time_distributed_convolutions():
    inputs = keras.Input((5, 16, 16, 1))
    x = layers.TimeDistributed(layers.Conv2D(8, 3, name="conv"))(inputs)
    x = layers.TimeDistributed(layers.ReLU())(x)
    x = layers.GlobalAveragePooling3D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    structure = next(s for s in tf_ssl.find_structures(model) if s.size == 8)
    structure.zero([0, 1, 2])
    small = shrunk(model, noise(2, 5, 16, 16, 1))
    assert small.layers[1].layer.filters == 5


def test_time_distributed_dense_reads_less():
    inputs = keras.Input((10, 4))
    x = layers.LSTM(6, return_sequences=True, name="lstm")(inputs)
    x = layers.TimeDistributed(layers.Dense(4))(x)
    model = keras.Model(inputs, x)
    tf_ssl.find_structures(model)["lstm/units"].zero([0, 1])
    small = shrunk(model, noise(3, 10, 4))
    assert small.get_layer("lstm").units == 4


def test_time_distributed_models():
    inner = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(8, 3, name="one"),
            layers.Conv2D(8, 3, name="two"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    inputs = keras.Input((5, 16, 16, 1))
    x = layers.LSTM(4, name="lstm")(layers.TimeDistributed(inner)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    structures = tf_ssl.find_structures(model)
    assert {s.name for s in structures if s.kind != "input"} == {
        "one/filters",
        "two/filters",
        "lstm/units",
    }
    structures["one/filters"].zero([0, 1])
    structures["two/filters"].zero([3])
    small = shrunk(model, noise(2, 5, 16, 16, 1))
    wrapped = small.layers[1].layer
    assert wrapped.get_layer("one").filters == 6
    assert wrapped.get_layer("two").filters == 7
