"""The picture of kernels before and after."""

import keras
import pytest

import tf_ssl


def language_model():
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 5)(words)
    x = keras.layers.LSTM(8, return_sequences=True, name="lstm")(x)
    return keras.Model(words, keras.layers.Dense(9, name="logits")(x))


def test_white_strips_and_what_is_left():
    model = language_model()
    tf_ssl.find_structures(model)["lstm/units"].zero([1, 2, 6])
    small = tf_ssl.shrink(model)
    drawing = tf_ssl.shrink_figure(model, small, ["lstm", "logits"])
    before, after = drawing.axes[2:4]  # the recurrent kernel
    assert before.get_title() == (
        "lstm/lstm_cell/recurrent_kernel before: 8 x 32, 61% zero"
    )
    assert after.get_title().endswith("after: 5 x 20, 0% zero")
    picture = before.images[0].get_array()
    white = (picture == tf_ssl.pictures.WHITE).all(axis=1)
    assert [i for i in range(8) if white[i]] == [1, 2, 6]
    white = (picture == tf_ssl.pictures.WHITE).all(axis=0)
    assert [i for i in range(8) if white[i]] == [1, 2, 6]
    # To one scale.
    assert after.get_xlim() == before.get_xlim() == (0, 32)
    assert after.get_ylim() == before.get_ylim() == (8, 0)


def test_pattern_that_matches_nothing():
    model = language_model()
    with pytest.raises(ValueError) as error:
        tf_ssl.shrink_figure(model, model, ["gru"])
    assert str(error.value).endswith("Received: patterns=['gru']")
