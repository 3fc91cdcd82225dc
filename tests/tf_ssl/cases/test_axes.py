"""Units that are not on the last axis, and arrays that are added to them."""

import keras
import numpy as np

import tf_ssl
from tests.tf_ssl.cases.same import noise, shrunk

layers = keras.layers


def test_dense_along_steps():
    inputs = keras.Input((16, 10))
    x = layers.Dense(12, name="d")(inputs)
    y = layers.Dense(16, name="tokens")(layers.Permute((2, 1))(x))
    x = layers.Add()([x, layers.Permute((2, 1))(y)])
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    structures = tf_ssl.find_structures(model)
    structure = structures["d/units"]
    # What the layer over steps adds to a unit does not go with its kernel.
    model.get_layer("tokens").bias.assign(np.zeros(16))
    structure.zero([0, 5])
    np.testing.assert_array_equal(np.flatnonzero(structure.dead()), [0, 5])
    small = shrunk(model, noise(3, 16, 10))
    assert small.get_layer("d").units == 10


def test_positions_as_an_array():
    positions = noise(1, 12, 16)
    ids = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 16)(ids) + positions
    x = layers.Dense(8, activation="relu", name="h")(x)
    model = keras.Model(ids, layers.Dense(3)(x))
    tf_ssl.find_structures(model)["h/units"].zero([1, 2, 3])
    small = shrunk(model, np.arange(24).reshape(2, 12) % 20)
    assert small.get_layer("h").units == 5


def test_convolution_over_channels():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="c")(images)
    g = layers.Reshape((6, 1))(layers.GlobalAveragePooling2D()(x))
    g = layers.Conv1D(1, 3, padding="same", name="over")(g)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(g)])
    x = layers.Conv2D(4, 3, name="next")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, layers.Dense(2)(x))
    structures = tf_ssl.find_structures(model)
    # A window over channels needs all of them, in their order.
    assert "over mixes its places" in dict(structures.skipped)["c"]
    structures["next/filters"].zero([2])
    small = shrunk(model, noise(2, 8, 8, 3))
    assert small.get_layer("c").filters == 6
    assert small.get_layer("next").filters == 3
