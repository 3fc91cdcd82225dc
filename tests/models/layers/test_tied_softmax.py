import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import RHN, TiedSoftmax
from tests.tf_ssl.shrinking.test_shrink import MODES, fill


def test_formula():
    layer = TiedSoftmax(7, 4, bias_initializer="normal")
    hidden = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    logits = layer(hidden, reverse=True)
    table = layer.embeddings.numpy().astype(np.float64)
    bias = layer.bias.numpy()
    assert (bias != 0).all()
    np.testing.assert_allclose(logits, hidden @ table.T + bias, atol=1e-6)
    words = np.array([[6, 0, 0]])
    np.testing.assert_allclose(layer(words), table[words])
    assert len(layer.trainable_variables) == 2


def language_model(make, words=11, size=6):
    x = inputs = keras.Input([None], dtype="int32")
    table = TiedSoftmax(words, size, name="embedding")
    x = make(size)(table(x))
    return keras.Model(inputs, table(x, reverse=True))


def lstms(size):
    def stack(x):
        x = layers.LSTM(5, return_sequences=True, name="first")(x)
        x = layers.Dropout(0.5)(x)
        return layers.LSTM(size, return_sequences=True, name="last")(x)

    return stack


def dense(size):
    return lambda x: layers.Dense(size, activation="sigmoid", name="last")(x)


def rhn(size):
    return RHN(size, depth=3, return_sequences=True, name="last")


def compare(model, small):
    tokens = np.array([[1, 10, 3, 0], [4, 4, 0, 9]])
    a, b = (m(tokens).numpy() for m in (model, small))
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lstms, rhn, dense])
def test_shrunk_against_zeroed(make, mode):
    model = fill(language_model(make))
    structures = tf_ssl.find_structures(model)
    assert [(s.name, s.size) for s in structures if s.size == 6] == [
        ("embedding/embedding", 6)
    ]
    MODES[mode](structures["embedding/embedding"], [1, 2, 4])
    small = tf_ssl.shrink(model)
    compare(model, small)
    if mode != "kernels":
        assert small.get_layer("embedding").output_dim == 3
        assert small.get_layer("last").units == 3
        assert tuple(small.get_layer("embedding").embeddings.shape) == (11, 3)


def test_word_that_no_other_reads_stays_if_the_softmax_reads_the_state():
    model = fill(language_model(rhn))
    cell = model.get_layer("last").cell
    kernel = cell.kernel.numpy()
    kernel[2] = 0.0  # the embedding's column is not read there
    cell.kernel.assign(kernel)
    assert not tf_ssl.find_structures(model)[0].dead()[2]


def test_constant_is_folded_into_the_bias():
    model = fill(language_model(dense))
    layer = model.get_layer("last")
    value = layer.kernel.numpy()
    value[:, 3] = 0.0  # its output is a constant, sigmoid(bias)
    value[3] = 0.0  # and its embedding is not read
    layer.kernel.assign(value)
    small = tf_ssl.shrink(model)
    assert small.get_layer("embedding").output_dim == 5
    assert small.shrink_report.folded == ["embedding"]
    compare(model, small)


def test_unit_of_a_tied_rhn():
    # Appendix of the paper, for one index k: a column of the table, a row and
    # two columns in every matrix.
    model = fill(language_model(rhn))
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    (structure,) = tf_ssl.find_structures(model)
    first = 2 * 6 + 2 * 6 - 2  # columns and row, which cross
    expected = 11 + first + 3 * first
    assert structure.norms()[0] ** 2 == pytest.approx(expected)


def test_masks():
    words = keras.Input([None], dtype="int32")
    table = TiedSoftmax(7, 4, mask_zero=True)
    logits = table(
        layers.LSTM(4, return_sequences=True)(table(words)), reverse=True
    )
    model = keras.Model(words, logits)
    padded = np.array([[3, 5, 0, 0]])
    result = model(padded)
    np.testing.assert_allclose(result[:, :2], model(padded[:, :2]), atol=1e-6)
    # Padded steps keep the state of the last word.
    np.testing.assert_allclose(result[:, 3], result[:, 1], atol=1e-6)
    np.testing.assert_array_equal(result._keras_mask, padded != 0)


def test_saving(tmp_path):
    model = language_model(rhn)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    tokens = np.array([[1, 10, 3, 0]])
    np.testing.assert_array_equal(model(tokens), loaded(tokens))
    layer = TiedSoftmax(7, 4, bias_initializer="ones", mask_zero=True)
    again = TiedSoftmax.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.get_config()["mask_zero"] is True


@pytest.mark.parametrize("name", ["tie_weights", "logit_soft_cap"])
def test_arguments(name):
    with pytest.raises(ValueError) as error:
        TiedSoftmax(7, 4, **{name: None})
    assert str(error.value) == (
        "Invalid argument. Expected those of ReversibleEmbedding without "
        f"tie_weights and logit_soft_cap. Received: {name}"
    )
