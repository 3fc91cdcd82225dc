import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import AttentionPooling
from tests.tf_ssl.shrinking.test_shrink import MODES, fill, plant_and_shrink


def test_formula():
    random = np.random.default_rng(0)
    x, logits = random.normal(size=(2, 5, 3)), random.normal(size=(2, 5))
    logits[0, 3:] = -1e30
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = np.einsum("bt,btd->bd", weights, x)
    y = AttentionPooling()(x.astype("float32"), logits.astype("float32"))
    np.testing.assert_allclose(
        y, np.broadcast_to(mean[:, None], x.shape), atol=1e-6
    )


def pointer():
    """As BiDAF: the mean and its product with the sequence."""
    x = inputs = keras.Input((7, 3))
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.Dense(5, "sigmoid", name="dense")(x)
    logits = layers.Flatten()(layers.Dense(1, name="logits")(x))
    a = AttentionPooling(name="pooling")(x, logits)
    y = layers.Concatenate()([x, a, x * a])
    return fill(keras.Model(inputs, [logits, layers.Dense(2, name="last")(y)]))


@pytest.mark.parametrize("mode", MODES)
def test_shrunk_against_zeroed(mode):
    planted, removed = plant_and_shrink(pointer(), mode, lambda structure, i: 2)
    assert removed["dense/units"] == planted["dense/units"] == 2


@pytest.mark.parametrize("row", [2, 7, 12])
def test_every_reader_keeps_a_unit(row):
    model = pointer()
    unit = tf_ssl.find_structures(model)["dense/units"]
    for part in unit.of(["in"]):
        part.zero([2])
    assert unit.dead()[2]
    # Among them the rows of the mean, which the authors' groups lack.
    kernel = model.layers[-1].kernel
    value = kernel.numpy()
    value[row] = 0.1
    kernel.assign(value)
    assert not unit.dead().any()


def test_multiply_adds():
    inputs = keras.Input((7, 5))
    logits = layers.Flatten()(layers.Dense(1)(inputs))
    model = keras.Model(
        inputs, AttentionPooling(name="pooling")(inputs, logits)
    )
    assert tf_ssl.multiply_adds(model)["pooling"] == 7 * 5


def test_saving(tmp_path):
    model = pointer()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
    for a, b in zip(model(x), loaded(x), strict=True):
        np.testing.assert_array_equal(a, b)
