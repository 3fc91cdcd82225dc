import re

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import WordDropout
from tests.tf_ssl.shrinking.test_shrink import fill

WORDS = np.array([[3, 7, 3, 3, 5, 7], [3, 4, 5, 6, 7, 3]])


def test_occurrences_share_one_fate():
    layer, ones = WordDropout(0.5, seed=1), np.ones((2, 6, 3), "float32")
    rows_differ = False
    for _ in range(20):
        y = layer(ones, WORDS, training=True).numpy()
        assert set(np.unique(y)) <= {0.0, 2.0}
        assert (y == y[..., :1]).all()  # all features of a word
        for row, words in zip(y, WORDS, strict=True):
            for word in words:
                assert len(np.unique(row[words == word])) == 1
        rows_differ |= y[0, 0, 0] != y[1, 0, 0]
    assert rows_differ


def test_rate():
    layer = WordDropout(0.2, seed=1)
    words = np.arange(20_000).reshape(2, -1)
    # Compared pairwise, words cost memory: the words of a few sequences.
    words = words[:, :1000]
    y = [
        layer(np.ones((2, 1000, 1), "float32"), words, training=True)
        for _ in range(10)
    ]
    # 20,000 draws: six standard deviations are 0.017.
    assert abs(np.mean(np.equal(y, 0)) - 0.2) < 0.017
    assert np.max(y) == np.float32(1 / 0.8)


def test_inference():
    ones = np.ones((2, 6, 3), "float32")
    np.testing.assert_array_equal(WordDropout(0.5)(ones, WORDS), ones)
    np.testing.assert_array_equal(
        WordDropout(0.0)(ones, WORDS, training=True), ones
    )


def test_units_pass():
    words = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 5, name="embedding")(words)
    x = WordDropout(0.5)(x, words)
    model = fill(keras.Model(words, layers.Dense(2)(x)))
    tf_ssl.find_structures(model)["embedding/embedding"].zero([0, 3])
    small = tf_ssl.shrink(model)
    assert small.get_layer("embedding").output_dim == 3
    np.testing.assert_allclose(small(WORDS), model(WORDS), atol=1e-6)


def test_saving(tmp_path):
    words = keras.Input((None,), dtype="int32")
    x = WordDropout(0.25, seed=3)(layers.Embedding(9, 5)(words), words)
    model = keras.Model(words, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_arguments(rate):
    message = (
        "Invalid value for argument rate. Expected a rate in [0, 1). "
        f"Received: rate={rate}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WordDropout(rate)
