import re

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import PartlyFixedEmbedding
from tests.tf_ssl.shrinking.test_shrink import fill


def model_with(num_fixed=4):
    words = keras.Input((None,), dtype="int32")
    x = PartlyFixedEmbedding(7, 5, num_fixed, name="words")(words)
    return fill(keras.Model(words, layers.Dense(2)(x)))


def test_which_table_a_word_is_in():
    layer = model_with().get_layer("words")
    table = np.concatenate([layer.embeddings.numpy(), layer.fixed.numpy()])
    assert table.shape == (7, 5)
    np.testing.assert_array_equal(layer(np.arange(7)), table)


def test_only_one_table_is_trained():
    model = model_with()
    layer = model.get_layer("words")
    before = layer.embeddings.numpy(), layer.fixed.numpy()
    model.compile("sgd", "mse")
    words = np.array([[1, 3, 6]])
    model.fit(words, np.ones((1, 3, 2)), verbose=0)
    changed = (layer.embeddings.numpy() != before[0]).any(axis=1)
    # Words with a given vector move no row of the other table.
    assert changed.tolist() == [False, True, False]
    np.testing.assert_array_equal(layer.fixed, before[1])


def test_shrunk_against_zeroed():
    model = model_with()
    structure = tf_ssl.find_structures(model)["words/embedding"]
    layer = model.get_layer("words")
    trained = (layer.embeddings.numpy() ** 2).sum(axis=0)
    np.testing.assert_allclose(structure.norms() ** 2, trained, rtol=1e-6)
    for part in structure.of(["in"]):
        part.zero([1, 4])
    small = tf_ssl.shrink(model)
    assert small.get_layer("words").embeddings.shape == (3, 3)
    assert small.get_layer("words").fixed.shape == (4, 3)
    words = np.array([[0, 3, 6]])
    np.testing.assert_allclose(small(words), model(words), atol=1e-6)


def test_given_vectors_keep_a_feature():
    model = model_with()
    layer = model.get_layer("words")
    value = layer.embeddings.numpy()
    value[:, 1] = 0.0
    layer.embeddings.assign(value)
    structure = tf_ssl.find_structures(model)["words/embedding"]
    assert not structure.dead().any()
    value = layer.fixed.numpy()
    value[:, 1] = 0.0
    layer.fixed.assign(value)
    assert structure.dead().tolist() == [False, True, False, False, False]


def test_saving(tmp_path):
    model = model_with()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    words = np.arange(7)[None]
    np.testing.assert_array_equal(loaded(words), model(words))
    model.save_weights(tmp_path / "model.weights.h5")
    other = fill(model_with(), seed=5)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(words), model(words))


@pytest.mark.parametrize("num_fixed", [0, 7])
def test_arguments(num_fixed):
    message = (
        "Invalid value for argument num_fixed. Expected an integer in [1, 6]. "
        f"Received: num_fixed={num_fixed}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PartlyFixedEmbedding(7, 5, num_fixed)
