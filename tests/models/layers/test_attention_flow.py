import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import AttentionFlow
from tests.tf_ssl.shrinking.test_shrink import (
    MODES,
    fill,
    outputs,
    plant_and_shrink,
)


def softmax(x, axis):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def reference(layer, h, u, h_mask, u_mask):
    """The equations in float64, word by word."""
    w_h, w_u, w_hu = layer.kernel.numpy().astype(np.float64)
    results = []
    for b in range(len(h)):
        context, question = h[b][h_mask[b]], u[b][u_mask[b]]
        scores = np.array(
            [
                [x @ w_h + y @ w_u + (x * y) @ w_hu for y in question]
                for x in context
            ]
        )
        scores += layer.bias.numpy()
        attended = softmax(scores, 1) @ question
        pooled = softmax(scores.max(axis=1), 0) @ context
        results.append(
            np.concatenate(
                [context, attended, context * attended, context * pooled],
                axis=1,
            )
        )
    return results


def texts(features=5):
    random = np.random.default_rng(0)
    h = random.normal(size=(2, 7, features)).astype("float32")
    u = random.normal(size=(2, 4, features)).astype("float32")
    return h, u


def built(features=5):
    layer = AttentionFlow()
    layer.build((2, 7, features), (2, 4, features))
    random = np.random.default_rng(1)
    layer.kernel.assign(random.normal(size=(3, features)))
    layer.bias.assign(0.3)
    return layer


@pytest.mark.parametrize("masked", [False, True])
def test_equations(masked):
    layer, (h, u) = built(), texts()
    h_mask, u_mask = np.ones((2, 7), bool), np.ones((2, 4), bool)
    if masked:
        h_mask[0, 5:], u_mask[1, 2:] = False, False
        y = layer(h, u, context_mask=h_mask, question_mask=u_mask)
    else:
        y = layer(h, u)
    assert y.shape == layer.compute_output_shape(h.shape, u.shape)
    expected = reference(layer, h, u, h_mask, u_mask)
    for b in range(2):
        np.testing.assert_allclose(y[b][h_mask[b]], expected[b], atol=1e-5)


def test_half_precision():
    layer, (h, u) = built(), texts()
    half = AttentionFlow(dtype="mixed_float16")
    half.build(h.shape, u.shape)
    half.set_weights(layer.get_weights())
    mask = np.ones((2, 4), bool)
    mask[:, 3] = False
    y = half(h, u, question_mask=mask)
    assert y.dtype == "float16"
    np.testing.assert_allclose(y, layer(h, u, question_mask=mask), atol=0.02)


def test_saving(tmp_path):
    h, u = keras.Input((7, 5)), keras.Input((4, 5))
    model = keras.Model([h, u], AttentionFlow("he_normal", name="flow")(h, u))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    config = model.get_layer("flow").get_config()
    assert loaded.get_layer("flow").get_config() == config
    np.testing.assert_array_equal(loaded(texts()), model(texts()))


def test_different_features():
    with pytest.raises(ValueError) as error:
        AttentionFlow().build((2, 7, 5), (2, 4, 6))
    assert str(error.value) == (
        "Invalid value for argument question. Expected as many features as "
        "context has, 5. Received: 6"
    )


def reader(shared=True, activation="tanh", behind=True):
    """One dense layer for both texts, or one for each."""
    context, question = keras.Input((7, 3)), keras.Input((4, 3))
    first = layers.Dense(6, activation, name="dense")
    second = first if shared else layers.Dense(6, activation, name="other")
    y = AttentionFlow(name="flow")(first(context), second(question))
    if behind:
        y = layers.LSTM(4, return_sequences=True, name="lstm")(y)
    return fill(
        keras.Model([context, question], layers.Dense(2, name="last")(y))
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_shrunk_against_zeroed(activation, shared, mode):
    planted, removed = plant_and_shrink(
        reader(shared, activation), mode, lambda structure, i: 2
    )
    # A constant, be it 0.5 for a sigmoid, is folded into what reads it.
    assert removed["dense/units"] == planted["dense/units"] == 2


def test_unit_and_its_weights():
    model = reader()
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    unit = tf_ssl.find_structures(model)["dense/units"]
    # Makes it: 3 weights and a bias. Reads it: 3 of the attention, four rows of
    # 16 columns behind.
    np.testing.assert_allclose(unit.norms(("out",)) ** 2, 3 + 1)
    np.testing.assert_allclose(unit.norms(("in",)) ** 2, 3 + 4 * 16)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_weight_of_the_attention_keeps_a_unit(row):
    model = reader()
    unit = tf_ssl.find_structures(model)["dense/units"]
    for part in unit.of(["in"]):
        part.zero([2])
    assert unit.dead().tolist() == [False, False, True, False, False, False]
    kernel = model.get_layer("flow").kernel
    value = kernel.numpy()
    value[row, 2] = 0.1
    kernel.assign(value)
    assert not unit.dead().any()


@pytest.mark.parametrize("part", range(4))
def test_any_part_of_the_result_keeps_a_unit(part):
    model = reader()
    unit = tf_ssl.find_structures(model)["dense/units"]
    for piece in unit.of(["in"]):
        piece.zero([2])
    kernel = model.get_layer("lstm").cell.kernel
    value = kernel.numpy()
    value[part * 6 + 2, 0] = 0.1
    kernel.assign(value)
    assert not unit.dead().any()


def test_constant_of_one_text_only_stays():
    model = reader(shared=False)
    layer = model.get_layer("dense")
    value = layer.kernel.numpy()
    value[:, 1] = 0.0  # tanh of the bias, for the text; the question's is alive
    layer.kernel.assign(value)
    small = tf_ssl.shrink(model)
    assert small.get_layer("dense").units == 6
    other = model.get_layer("other")
    value = other.kernel.numpy()
    value[:, 1] = 0.0
    other.kernel.assign(value)
    small = tf_ssl.shrink(model)
    assert small.get_layer("dense").units == small.get_layer("other").units == 5
    assert small.shrink_report.folded == ["lstm"]
    for a, b in zip(outputs(model), outputs(small), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


def test_multiply_adds():
    h, u = keras.Input((7, 5)), keras.Input((4, 5))
    model = keras.Model([h, u], AttentionFlow(name="flow")(h, u))
    # Scores 7 x 4, two sums of scores, u~, h~; all of 5 features.
    expected = 5 * (7 * 4 + 7 + 4 + 7 * 4 + 7)
    assert tf_ssl.multiply_adds(model)["flow"] == expected
