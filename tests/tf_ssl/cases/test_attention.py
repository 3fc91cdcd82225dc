"""Attention: keywords, masks, widths of its own, weights on another axis."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import noise, shrunk

layers = keras.layers
INPUTS = [noise(3, 6, 5), noise(3, 7, 5, seed=1)]


def cross(**arguments):
    """Attention of `x` to `c`, all by keyword, as in Keras' tutorial."""
    a, b = keras.Input((6, 5)), keras.Input((7, 5))
    x, c = layers.Dense(8, name="x")(a), layers.Dense(8, name="c")(b)
    attention = layers.MultiHeadAttention(4, 3, name="mha", **arguments)
    outputs = layers.Dense(2)(attention(query=x, key=c, value=c))
    return keras.Model([a, b], outputs)


def readers(structure):
    """Kernels of the attention that read a structure."""
    return {
        part.variable.path.split("/")[-2]
        for part in structure.of(["in"])
        if "mha" in part.variable.path
    }


def test_keywords_say_which_input_is_which():
    structures = tf_ssl.find_structures(cross())
    assert readers(structures["x/units"]) == {"query"}
    assert readers(structures["c/units"]) == {"key", "value"}


@pytest.mark.parametrize("arguments", [{}, {"output_shape": 8}])
def test_units_that_nothing_reads(arguments):
    model = cross(**arguments)
    structures = tf_ssl.find_structures(model)
    for name, units in (("x/units", [0, 1]), ("c/units", [4, 5, 6])):
        for part in structures[name].of(["in"]):
            part.zero(units)
    np.testing.assert_array_equal(
        np.flatnonzero(structures["x/units"].dead()), [0, 1]
    )
    query = model.get_layer("mha")._query_dense.kernel.numpy()
    assert not query[[0, 1]].any() and query[2:].any((1, 2)).all()
    small = shrunk(model, INPUTS)
    assert small.get_layer("x").units == 6
    assert small.get_layer("c").units == 5


def test_units_that_are_zero():
    model = cross()
    structures = tf_ssl.find_structures(model)
    structures["x/units"].zero([0, 1, 2])
    structures["c/units"].zero([4, 5, 6])
    small = shrunk(model, INPUTS)
    assert small.get_layer("x").units == small.get_layer("c").units == 5


@pytest.mark.parametrize(("steps", "units"), [(6, 8), (8, 8)])
def test_a_mask_is_no_key(steps, units):
    inputs = keras.Input((steps, 5))
    mask = keras.Input((steps, steps), dtype="bool", name="mask")
    x = layers.Dense(units, name="x")(inputs)
    attention = layers.MultiHeadAttention(4, 3, name="mha")
    outputs = layers.Dense(2)(attention(x, x, attention_mask=mask))
    model = keras.Model([inputs, mask], outputs)
    structure = tf_ssl.find_structures(model)["x/units"]
    assert structure.size == units
    assert readers(structure) == {"query", "key", "value"}
    structure.zero([0, 1])
    seen = np.tril(np.ones((3, steps, steps), bool))
    small = shrunk(model, [noise(3, steps, 5), seen])
    assert small.get_layer("x").units == units - 2


def test_its_outputs_keep_their_width():
    inputs = keras.Input((6, 5))
    x = layers.Dense(8, name="x")(inputs)
    x = layers.MultiHeadAttention(4, 3, name="mha")(x, x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    tf_ssl.find_structures(model)["x/units"].zero([0, 1])
    small = shrunk(model, noise(3, 6, 5))
    assert small.get_layer("x").units == 6
    assert small.get_layer("mha").output.shape == (None, 6, 8)


def test_weights_of_steps_that_multiply_units():
    inputs = keras.Input((20, 6))
    h = layers.LSTM(8, return_sequences=True, name="lstm")(inputs)
    s = layers.Flatten()(layers.Dense(1)(h))
    s = layers.Activation("softmax")(s)
    s = layers.Permute((2, 1))(layers.RepeatVector(8)(s))
    x = layers.GlobalAveragePooling1D()(layers.Multiply(name="product")([h, s]))
    model = keras.Model(inputs, layers.Dense(3)(x))
    # A RepeatVector would have to repeat less often: left whole, and said.
    reason = dict(tf_ssl.find_structures(model).skipped)["lstm"]
    assert reason == "product joins them with what is not followed"
    small = shrunk(model, noise(3, 20, 6))
    assert small.get_layer("lstm").units == 8
