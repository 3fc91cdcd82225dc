"""Recurrent networks, shrunk against zeroed."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import MODES, fill, plant_and_shrink


def stacked(layer, **arguments):
    x = inputs = keras.Input([6, 5])
    x = layer(7, return_sequences=True, name="first", **arguments)(x)
    x = layers.Dropout(0.5)(x)
    x = layer(6, return_sequences=True, name="second", **arguments)(x)
    x = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="each")(
        x
    )
    x = layer(5, name="third", **arguments)(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def encoder_decoder():
    inputs, targets = (
        keras.Input([6, 5], name="x"),
        keras.Input([4, 2], name="y"),
    )
    _, h, c = layers.LSTM(6, return_state=True, name="encoder")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="decoder")(
        targets, initial_state=[h, c]
    )
    return keras.Model([inputs, targets], layers.Dense(3)(x))


def bidirectional(merge_mode):
    x = inputs = keras.Input([6, 5])
    x = layers.Bidirectional(
        layers.LSTM(5, return_sequences=True, name="lstm"),
        merge_mode=merge_mode,
        name="both",
    )(x)
    x = layers.Bidirectional(layers.GRU(4), name="last")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


MODELS = {
    "lstm": lambda: stacked(layers.LSTM),
    "lstm_backwards": lambda: stacked(layers.LSTM, go_backwards=True),
    "lstm_without_bias": lambda: stacked(layers.LSTM, use_bias=False),
    "gru": lambda: stacked(layers.GRU),
    "gru_reset_before": lambda: stacked(layers.GRU, reset_after=False),
    "simple": lambda: stacked(layers.SimpleRNN),
    "encoder_decoder": encoder_decoder,
    "concat": lambda: bidirectional("concat"),
    "sum": lambda: bidirectional("sum"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_same_outputs(name, mode):
    planted, removed = plant_and_shrink(
        fill(MODELS[name]()),
        mode,
        lambda structure, i: 2 + i % 2,  # directions lose different numbers
    )
    if mode != "kernels":
        assert {n: removed[n] for n in planted} == planted


def test_units_of_a_language_model():
    x = inputs = keras.Input([None], dtype="int32")
    x = layers.Embedding(11, 8, name="embedding")(x)
    x = layers.LSTM(7, return_sequences=True, name="lstm1")(x)
    x = layers.LSTM(6, return_sequences=True, name="lstm2")(x)
    model = fill(keras.Model(inputs, layers.Dense(11, name="words")(x)))
    structures = tf_ssl.find_structures(model)
    assert [(s.name, s.size) for s in structures] == [
        ("embedding/embedding", 8),
        ("lstm1/units", 7),
        ("lstm2/units", 6),
    ]
    # Figure 2 of the paper: 8 columns of gates in two kernels, a row of the
    # recurrent kernel, and the rows that read it next; no biases.
    weights = 4 * (8 + 7) + (4 * 7 - 4) + 4 * 6
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    np.testing.assert_allclose(structures["lstm1/units"].norms() ** 2, weights)
    fill(model)
    for name, units in (
        ("embedding/embedding", [0, 3]),
        ("lstm1/units", [1, 2, 6]),
        ("lstm2/units", [5]),
    ):
        structures[name].zero(units)
    small = tf_ssl.shrink(model)
    assert small.get_layer("embedding").output_dim == 6
    assert small.get_layer("lstm1").units == 4
    assert small.get_layer("lstm2").units == 5
    tokens = np.array([[1, 10, 3], [4, 4, 0]])
    np.testing.assert_allclose(
        small(tokens), model(tokens), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_directions_under_a_mask(merge_mode, return_sequences):
    x = inputs = keras.Input([None], dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True, name="embedding")(x)
    x = layers.Bidirectional(
        layers.LSTM(5, return_sequences=return_sequences, name="lstm"),
        merge_mode=merge_mode,
        name="both",
    )(x)
    if merge_mode is None:
        x = layers.Concatenate()(x)
    if return_sequences:
        x = layers.LSTM(3)(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    structures = tf_ssl.find_structures(model)
    structures["forward_lstm/units"].zero([0, 1])
    structures["backward_lstm/units"].zero([0, 1, 2])
    small = tf_ssl.shrink(model)
    assert small.get_layer("forward_lstm").units == 3
    assert small.get_layer("backward_lstm").units == 2
    tokens = np.array([[1, 10, 3, 0, 0, 0], [4, 4, 0, 0, 0, 0]])
    np.testing.assert_allclose(
        small(tokens), model(tokens), rtol=1e-5, atol=1e-6
    )
    # Padding changes nothing.
    np.testing.assert_allclose(
        small(tokens[:, :3]), model(tokens), rtol=1e-5, atol=1e-6
    )
