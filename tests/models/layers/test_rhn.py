import re

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import RHN, RHNCell
from tests.tf_ssl.shrinking.test_shrink import (
    MODES,
    fill,
    outputs,
    plant_and_shrink,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(layer, x, state=None, input_mask=1.0, state_mask=1.0):
    """The equations in float64: states of all steps, `[batch, time, units]`."""
    units, x = layer.units, x.astype(np.float64)
    cell = layer.cell
    kernel = cell.kernel.numpy().astype(np.float64)
    s = np.zeros([len(x), units]) if state is None else state
    states = []
    for i in range(x.shape[1]):
        for depth in range(layer.depth):
            recurrent = cell.recurrent_kernels[depth].numpy()
            bias = cell.biases[depth].numpy()
            z = (s * state_mask) @ recurrent + bias
            if depth == 0:
                z = z + (x[:, i] * input_mask) @ kernel
            h, t = np.tanh(z[:, :units]), sigmoid(z[:, units:])
            s = h * t + s * (1 - t)
        states.append(s)
    return np.stack(states, 1)


def words(shape=(3, 7, 5), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(**arguments):
    layer = RHN(6, **{"depth": 3, "return_sequences": True, **arguments})
    layer.build((3, 7, 5))
    for i, variable in enumerate(layer.trainable_variables):
        random = np.random.default_rng(i)
        variable.assign(random.normal(size=variable.shape, scale=0.5))
    return layer


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_equations(depth):
    layer, x = built(depth=depth), words()
    np.testing.assert_allclose(layer(x), reference(layer, x), atol=2e-6)
    shapes = [tuple(v.shape) for v in layer.trainable_variables]
    assert shapes == [(5, 12)] + depth * [(6, 12)] + depth * [(12,)]
    last = RHN.from_config({**layer.get_config(), "return_sequences": False})
    last.build((3, 7, 5))
    last.set_weights(layer.get_weights())
    np.testing.assert_allclose(last(x), layer(x)[:, -1], atol=1e-6)


def test_states_in_and_out():
    layer, x = built(return_state=True), words()
    start = words((3, 6), seed=1)
    sequence, state = layer(x, initial_state=[start])
    expected = reference(layer, x, start)
    np.testing.assert_allclose(sequence, expected, atol=2e-6)
    np.testing.assert_allclose(state, expected[:, -1], atol=2e-6)


def test_go_backwards_and_unroll():
    x = words()
    layer = built(go_backwards=True, unroll=True)
    expected = reference(layer, x[:, ::-1])
    np.testing.assert_allclose(layer(x), expected, atol=2e-6)


def test_stateful_goes_on_where_it_stopped():
    layer, x = built(stateful=True), words()
    whole = reference(layer, x)
    parts = [layer(x[:, :4]), layer(x[:, 4:])]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=2e-6)
    layer.reset_state()
    np.testing.assert_allclose(layer(x[:, :4]), whole[:, :4], atol=2e-6)


def test_masked_steps_keep_the_state():
    layer, x = built(), words()
    mask = np.ones([3, 7], bool)
    mask[:, 3] = False
    expected = reference(layer, np.delete(x, 3, axis=1))
    result = layer(x, mask=mask).numpy()
    np.testing.assert_allclose(np.delete(result, 3, 1), expected, atol=2e-6)
    np.testing.assert_allclose(result[:, 3], result[:, 2])


def test_most_of_the_state_is_carried_at_first():
    layer = RHN(4, depth=2)
    layer.build((1, 3, 5))
    for bias in layer.cell.biases:
        assert bias.numpy().tolist() == [0.0] * 4 + [-2.0] * 4


@pytest.mark.parametrize("seed", [None, 5])
def test_micro_layers_begin_different(seed):
    draw = keras.initializers.RandomUniform(-0.04, 0.04, seed=seed)
    layer = RHN(4, depth=3, recurrent_initializer=draw)
    layer.build((1, 3, 4))
    kernels = [v.numpy() for v in layer.cell.recurrent_kernels]
    assert len({x.tobytes() for x in kernels}) == 3
    assert np.abs(kernels).max() <= 0.04
    again = RHN(4, depth=3, recurrent_initializer=draw)
    again.build((1, 3, 4))
    equal = (again.cell.recurrent_kernels[2].numpy() == kernels[2]).all()
    assert equal == (seed is not None)


@pytest.mark.parametrize("of", ["input", "state"])
def test_one_mask_a_sequence(of):
    rates = {"input": "dropout", "state": "recurrent_dropout"}
    layer, x = built(seed=3, **{rates[of]: 0.5}), words((1, 12, 5))
    np.testing.assert_allclose(layer(x), reference(layer, x), atol=2e-6)
    seen = set()
    for _ in range(20):
        result = layer(x, training=True).numpy()
        # Some mask of zeros and twos, one for all steps and micro-layers,
        # explains the whole sequence.
        size = {"input": 5, "state": 6}[of]
        matches = []
        for bits in np.ndindex(*[2] * size):
            expected = reference(
                layer, x, **{f"{of}_mask": 2.0 * np.array(bits)}
            )
            if np.allclose(result, expected, atol=1e-5):
                matches.append(bits)
        assert len(matches) == 1
        seen.update(matches)
        if len(seen) > 2:
            break
    assert len(seen) > 2


def test_gradients_reach_all_weights():
    inputs = keras.Input((7, 5))
    model = keras.Model(
        inputs, built(dropout=0.2, recurrent_dropout=0.2)(inputs)
    )
    before = [v.numpy() for v in model.trainable_variables]
    model.compile("sgd", "mse")
    model.fit(words(), words((3, 7, 6), 1), verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert (old != new.numpy()).any(), new.path


def test_saving(tmp_path):
    options = {
        "depth": 2,
        "transform_bias": -1.5,
        "dropout": 0.25,
        "recurrent_dropout": 0.5,
        "seed": 9,
        "return_sequences": True,
        "kernel_regularizer": keras.regularizers.L2(0.5),
        "recurrent_regularizer": keras.regularizers.L1(0.25),
        "kernel_initializer": keras.initializers.RandomUniform(-0.1, 0.1),
        "recurrent_initializer": "he_uniform",
    }
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, RHN(3, **options)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    assert loaded.layers[-1].kernel_regularizer.l2 == 0.5
    x = words((2, 4, 5))
    np.testing.assert_array_equal(model(x), loaded(x))
    assert float(sum(model.losses)) > 0
    # Bit by bit the same sum: two kernels and their regularizers.
    assert len(loaded.losses) == 3


def test_cell_inside_keras_rnn(tmp_path):
    inputs = keras.Input((7, 5))
    layer = built()
    model = keras.Model(inputs, layers.RNN(RHNCell(6, 3))(inputs))
    model.set_weights(layer.get_weights())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = words()
    np.testing.assert_allclose(loaded(x), layer(x)[:, -1], atol=1e-6)


def stack():
    x = inputs = keras.Input([6, 5])
    x = RHN(7, depth=3, return_sequences=True, name="first")(x)
    x = layers.SpatialDropout1D(0.5)(x)
    x, state = RHN(6, 2, return_sequences=True, return_state=True, name="b")(x)
    x = layers.LSTM(5, name="third")(x)
    x = layers.Concatenate()([x, state])
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("mode", MODES)
def test_shrunk_against_zeroed(mode):
    planted, removed = plant_and_shrink(
        fill(stack()), mode, lambda structure, i: 2 + i % 2
    )
    if mode != "kernels":  # biases live on, a unit with them is no constant
        assert {n: removed[n] for n in planted} == planted


def test_units_and_their_weights():
    model = fill(stack())
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    unit = tf_ssl.find_structures(model)["first/units"]
    # Columns of h and t, rows of R less what crosses the columns, and the rows
    # of the next kernel; no biases.
    weights = 2 * 5 + 3 * (2 * 7 + 2 * 7 - 2) + 2 * 6
    np.testing.assert_allclose(unit.norms() ** 2, weights)


def test_unit_without_candidate_goes():
    model = fill(stack())
    cell = model.get_layer("first").cell
    # h stays zero, though t and what reads the unit live.
    for variable in (cell.kernel, *cell.recurrent_kernels, *cell.biases):
        value = variable.numpy()
        value[..., 4] = 0.0
        variable.assign(value)
    small = tf_ssl.shrink(model)
    assert small.get_layer("first").units == 6
    # One weight of h in the last micro-layer brings it back.
    value = cell.recurrent_kernels[-1].numpy()
    value[0, 4] = 0.1
    cell.recurrent_kernels[-1].assign(value)
    assert tf_ssl.shrink(model).get_layer("first").units == 7


def test_constant_input_is_folded_into_the_first_bias():
    x = inputs = keras.Input([6, 5])
    x = layers.Dense(4, activation="sigmoid", name="dense")(x)
    x = RHN(3, depth=2, name="rhn")(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    kernel = model.get_layer("dense").kernel
    kernel.assign(kernel.numpy() * [1, 0, 1, 0])
    small = tf_ssl.shrink(model)
    assert small.get_layer("dense").units == 2
    assert small.shrink_report.folded == ["rhn"]
    for a, b in zip(outputs(model), outputs(small), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


def test_given_states():
    inputs, targets = keras.Input([6, 5]), keras.Input([4, 2])
    _, state = RHN(6, 2, return_state=True, name="encoder")(inputs)
    x = RHN(6, 3, name="decoder")(targets, initial_state=[state])
    model = fill(keras.Model([inputs, targets], layers.Dense(3)(x)))
    structures = tf_ssl.find_structures(model)
    structures["encoder/units"].zero([1, 5])
    small = tf_ssl.shrink(model)
    assert small.get_layer("encoder").units == 4
    assert small.get_layer("decoder").units == 4
    for a, b in zip(outputs(model), outputs(small), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


def test_multiply_adds():
    inputs = keras.Input([6, 5])
    model = keras.Model(inputs, RHN(4, depth=3, name="rhn")(inputs))
    counts = tf_ssl.multiply_adds(model)
    assert counts["rhn"] == 6 * (5 * 8 + 3 * 4 * 8)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("units", 0, "an integer >= 1"),
        ("units", 2.5, "an integer >= 1"),
        ("depth", 0, "an integer >= 1"),
        ("dropout", 1.0, "a rate in [0, 1)"),
        ("recurrent_dropout", -0.1, "a rate in [0, 1)"),
    ],
)
@pytest.mark.parametrize("layer", [RHN, RHNCell])
def test_arguments(layer, name, value, expected):
    message = (
        f"Invalid value for argument {name}. Expected {expected}. "
        f"Received: {name}={value}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer(**{"units": 3, name: value})


def test_unknown_argument_of_the_cell():
    with pytest.raises(ValueError) as error:
        RHNCell(3, activation="relu")
    assert str(error.value) == (
        "Invalid argument. Expected one of ['depth', 'dropout', 'dtype', "
        "'kernel_initializer', 'kernel_regularizer', 'name', "
        "'recurrent_dropout', 'recurrent_initializer', "
        "'recurrent_regularizer', 'seed', 'trainable', 'transform_bias', "
        "'units']. Received: activation"
    )
