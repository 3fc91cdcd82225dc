"""Counts against products written out by hand, a factor for each loop."""

import keras
import numpy as np
import pytest

import tf_ssl
from tf_ssl.measure.multiply_adds import multiply_adds

layers = keras.layers


def _model(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, layer(*inputs))


def _total(layer, *shapes):
    found = multiply_adds(_model(layer, *shapes))
    assert not found.unknown
    return found.total


# Positions of the output, kernel, channels in, filters.
@pytest.mark.parametrize(
    "layer, shape, expected",
    [
        (layers.Conv1D(4, 3), (10, 2), 8 * 3 * 2 * 4),
        (layers.Conv1D(4, 3, padding="causal"), (10, 2), 10 * 3 * 2 * 4),
        (layers.Conv2D(4, (3, 5)), (10, 12, 2), 8 * 8 * 15 * 2 * 4),
        (layers.Conv2D(4, 3, strides=2, padding="same"), (9, 9, 2), 25 * 72),
        (layers.Conv2D(4, 3, dilation_rate=2), (9, 9, 2), 5 * 5 * 9 * 2 * 4),
        (layers.Conv2D(6, 3, groups=2), (8, 8, 4), 6 * 6 * 9 * 2 * 6),
        (layers.Conv3D(4, 2), (5, 6, 7, 3), 4 * 5 * 6 * 8 * 3 * 4),
        (layers.DepthwiseConv1D(3), (10, 5), 8 * 3 * 5),
        (
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            (8, 8, 5),
            6 * 6 * 9 * 5 * 2,
        ),
        (
            layers.SeparableConv1D(7, 3, depth_multiplier=2),
            (10, 5),
            8 * (3 * 5 * 2 + 5 * 2 * 7),
        ),
        (
            layers.SeparableConv2D(7, 3, strides=2),
            (9, 9, 5),
            16 * (9 * 5 + 5 * 7),
        ),
        (layers.Conv1DTranspose(4, 3, strides=2), (10, 2), 10 * 3 * 2 * 4),
        (layers.Conv2DTranspose(4, 3), (5, 6, 2), 30 * 9 * 2 * 4),
        (layers.Conv3DTranspose(4, 2), (3, 4, 5, 2), 60 * 8 * 2 * 4),
    ],
    ids=lambda x: x.name if isinstance(x, keras.Layer) else None,
)
def test_convolutions(layer, shape, expected):
    assert _total(layer, shape) == expected


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5)])
def test_dense(shape):
    rows = int(np.prod(shape[:-1]))
    assert _total(layers.Dense(4), shape) == rows * 5 * 4
    einsum = layers.EinsumDense("...x,xy->...y", 4)
    assert _total(einsum, shape) == rows * 5 * 4


def test_einsum_dense_with_two_axes():
    layer = layers.EinsumDense("abc,cde->abde", (None, 3, 4))
    assert _total(layer, (6, 5)) == 6 * 5 * 3 * 4


@pytest.mark.parametrize(
    "layer, gates",
    [(layers.SimpleRNN(4), 1), (layers.GRU(4), 3), (layers.LSTM(4), 4)],
)
def test_recurrent(layer, gates):
    one = 10 * gates * 4 * (3 + 4)
    assert _total(layer, (10, 3)) == one
    both = layers.Bidirectional(type(layer)(4, return_sequences=True))
    assert _total(both, (10, 3)) == 2 * one


def test_stacked_cells():
    layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)])
    assert _total(layer, (10, 3)) == 10 * (4 * 4 * 7 + 3 * 5 * 9)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_conv_lstm(return_sequences):
    layer = layers.ConvLSTM2D(4, 3, return_sequences=return_sequences)
    # Six by six positions are left of eight by eight.
    assert _total(layer, (5, 8, 8, 2)) == 5 * 36 * 9 * (2 + 4) * 4 * 4


def test_multi_head_attention():
    layer = layers.MultiHeadAttention(3, key_dim=4, value_dim=5)
    projections = 6 * 8 * 12 + 7 * 9 * 12 + 7 * 9 * 15 + 6 * 15 * 8
    scores = 3 * 6 * 7 * (4 + 5)
    assert _total(layer, (6, 8), (7, 9)) == projections + scores


def test_multi_head_attention_with_a_key():
    layer = layers.MultiHeadAttention(3, key_dim=4)
    query, value, key = (keras.Input(s) for s in ((6, 8), (7, 9), (7, 2)))
    model = keras.Model([query, value, key], layer(query, value, key=key))
    projections = 6 * 8 * 12 + 7 * 9 * 12 + 7 * 2 * 12 + 6 * 12 * 8
    assert multiply_adds(model).total == projections + 3 * 6 * 7 * 8


def test_multi_head_attention_over_some_axes():
    layer = layers.MultiHeadAttention(2, key_dim=4, attention_axes=(2,))
    # Rows do not see each other: 5 times attention over 6 positions.
    expected = 5 * (4 * 6 * 3 * 8 + 2 * 6 * 6 * 8)
    assert _total(layer, (5, 6, 3), (5, 6, 3)) == expected


def test_grouped_query_attention():
    layer = layers.GroupQueryAttention(4, 6, 2)
    projections = 2 * 7 * 8 * 6 * 4 + 2 * 9 * 8 * 2 * 4
    model = _model(layer, (7, 8), (9, 8))
    expected = projections + 6 * 7 * 9 * (4 + 4)
    assert multiply_adds(model).total == expected


def test_attention():
    query, value = keras.Input((6, 4)), keras.Input((7, 4))
    for layer, features in (
        (layers.Attention(), 4 + 4),
        (layers.Attention(score_mode="concat"), 4),
        (layers.AdditiveAttention(), 4 + 4),
        (layers.AdditiveAttention(use_scale=False), 4),
    ):
        model = keras.Model([query, value], layer([query, value]))
        assert multiply_adds(model).total == 6 * 7 * features


def test_embedding():
    model = _model(layers.Embedding(9, 4), (5,))
    assert multiply_adds(model) == {model.layers[-1].name: 0}


@pytest.mark.skipif(
    not hasattr(layers, "ReversibleEmbedding"), reason="an older Keras"
)
def test_reversible_embedding():
    ids = keras.Input((5,), dtype="int32")
    layer = layers.ReversibleEmbedding(9, 4, name="words")
    model = keras.Model(ids, layer(layer(ids), reverse=True))
    assert multiply_adds(model) == {"words": 5 * 4 * 9}


def test_dot():
    first, second = keras.Input((6, 4)), keras.Input((6, 5))
    model = keras.Model([first, second], layers.Dot(axes=1)([first, second]))
    assert multiply_adds(model).total == 4 * 5 * 6


def test_operations():
    first, second = keras.Input((6, 4)), keras.Input((4, 5))
    for outputs, expected in (
        (keras.ops.matmul(first, second), 6 * 4 * 5),
        (first @ second, 6 * 4 * 5),
        (keras.ops.einsum("bij,bjk->bki", first, second), 6 * 4 * 5),
        (keras.ops.relu(first) * 3.0, 0),
    ):
        model = keras.Model([first, second], outputs)
        found = multiply_adds(model)
        assert found.total == expected
        assert not found.unknown


def test_dot_product_attention():
    query, key = keras.Input((6, 3, 4)), keras.Input((7, 3, 4))
    outputs = keras.ops.dot_product_attention(query, key, key)
    model = keras.Model([query, key], outputs)
    assert multiply_adds(model).total == 6 * 7 * 3 * (4 + 4)


def test_time_distributed():
    layer = layers.TimeDistributed(layers.Dense(4))
    assert _total(layer, (6, 5)) == 6 * 5 * 4


def test_einsum_of_three():
    inputs = [keras.Input((4, 4)) for _ in range(3)]
    model = keras.Model(inputs, keras.ops.einsum("bij,bjk,bkl->bil", *inputs))
    (reason,) = multiply_adds(model).unknown.values()
    assert reason == (
        "its multiply-adds depend on the order in which the 3 operands of "
        "bij,bjk,bkl->bil are multiplied"
    )


class _Cell(keras.Layer):
    state_size = output_size = 4

    def call(self, inputs, states):
        return inputs, states


def test_unknown_cells_are_named():
    found = multiply_adds(_model(layers.RNN(_Cell(), name="rnn"), (3, 4)))
    assert found.unknown["rnn"] == (
        "its cell _Cell has no rule; add one for the layer with "
        "@tf_ssl.multiply_add_rule(RNN)"
    )


def test_variables_and_arrays_are_nothing():
    inputs = keras.Input((3, 4))
    weight = tf_ssl.layers.Weight((4,), name="weight")(inputs)
    constant = tf_ssl.layers.Constant(np.ones((3, 4)), name="constant")(inputs)
    model = keras.Model(inputs, inputs * weight + constant)
    found = tf_ssl.multiply_adds(model)
    assert found == {"weight": 0, "constant": 0}
    assert found.unknown == {}
