"""Cases in which a rule once said too much: each model stays what it is."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import fill

Dense = layers.Dense
_random = np.random.default_rng(0)


def _ending(x):
    return Dense(2)(x)


def _heads(x):
    return [ops.reshape(Dense(12)(x), (-1, 6, 4, 3)) for _ in range(3)]


def _own_attention(x, **arguments):
    y = ops.dot_product_attention(*_heads(x), **arguments)
    return ops.reshape(y, (-1, 6, 12))


def _without_mean(x):
    return x - ops.mean(x, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("test_rules")
class Standardized(layers.Conv1D):
    """A convolution whose kernel has mean zero."""

    def convolution_op(self, inputs, kernel):
        mean = ops.mean(kernel, axis=(0, 1), keepdims=True)
        return super().convolution_op(inputs, kernel - mean)


@keras.saving.register_keras_serializable("test_rules")
class Turned(layers.MultiHeadAttention):
    """Heads change places."""

    def _compute_attention(self, *args, **kwargs):
        output, scores = super()._compute_attention(*args, **kwargs)
        return output[:, :, ::-1], scores


def _norm(axis=-1):
    return layers.BatchNormalization(axis)


def _of_states(x):
    """A unit that nothing enters but its first state, which others read."""
    state = Dense(5, activation="sigmoid")(ops.mean(x, axis=1))
    return layers.SimpleRNN(5)(x, initial_state=state)


def _attends_twice(x):
    layer = layers.MultiHeadAttention(4, 3)
    a = Dense(5, activation="sigmoid")(x)
    b = Dense(5, activation="sigmoid")(x)
    return layer(a, a) + layer(a, b)


_mask = (_random.random((1, 4, 6, 6)) < 0.5) | np.eye(6, dtype=bool)
_bias = _random.normal(size=(1, 4, 6, 6)).astype("float32")

# On [batch, 6, 5].
_CASES = {
    # What is folded is behind an activation, comes back, lies on another axis.
    "time distributed, norm": lambda x: _norm()(
        layers.TimeDistributed(Dense(6, "relu", use_bias=False))(Dense(5)(x))
    ),
    "cell, norm": lambda x: _norm()(
        layers.RNN(layers.SimpleRNNCell(6, use_bias=False))(Dense(5)(x))
    ),
    "linear recurrence, norm": lambda x: _norm()(
        layers.SimpleRNN(6, activation=None, use_bias=False)(Dense(5)(x))
    ),
    "norm of places": lambda x: _norm(1)(
        layers.Conv1D(6, 1, use_bias=False)(Dense(5)(x))
    ),
    "two biases": lambda x: layers.GRU(6, use_bias=False)(Dense(5)(x)),
    "bias of a time distributed layer": lambda x: layers.TimeDistributed(
        layers.Conv1D(4, 2, use_bias=False)
    )(ops.reshape(Dense(5)(x), (-1, 2, 3, 5))),
    "first states": _of_states,
    "called twice in two ways": _attends_twice,
    # What an operation has of its own.
    "pad with 1": lambda x: ops.pad(
        Dense(4)(x), [[0, 0], [0, 0], [1, 2]], constant_values=1.0
    ),
    "pad places with 4": lambda x: layers.Flatten()(
        ops.pad(Dense(4)(x), [[0, 0], [1, 1], [0, 0]], constant_values=4.0)
    ),
    "pad with reflection": lambda x: ops.pad(
        Dense(4)(x), [[0, 0], [2, 1], [0, 0]], mode="reflect"
    ),
    "initial": lambda x: ops.max(Dense(6)(x), axis=1, initial=1.5),
    "clip": lambda x: ops.clip(Dense(5)(x), np.arange(5.0) - 3, np.arange(5.0)),
    "repeats": lambda x: ops.repeat(
        Dense(6)(x), np.array([1, 2, 1, 1, 2, 1]), axis=-1
    ),
    "weights": lambda x: ops.average(Dense(6)(x), axis=-1, weights=Dense(6)(x)),
    "every other": lambda x: layers.ConvLSTM1D(4, 3, padding="same")(
        ops.expand_dims(x, -2)
    )[..., ::2],
    "reversed": lambda x: Dense(6)(x)[..., ::-1],
    # Products that no letters tell.
    "three factors": lambda x: ops.einsum(
        "bld,bld,bld->bd", Dense(6)(x), Dense(6)(x), Dense(6)(x)
    ),
    "implicit result": lambda x: ops.einsum(
        "bld,bmd", Dense(4)(x), Dense(4)(x)
    ),
    "diagonal": lambda x: ops.einsum("bii,bij->bij", Dense(6)(x), Dense(3)(x)),
    # Units that mix.
    "separable softmax": lambda x: layers.SeparableConv1D(
        6, 3, activation="softmax"
    )(Dense(5)(x)),
    "depthwise softmax": lambda x: layers.DepthwiseConv1D(
        3, activation="softmax"
    )(Dense(5)(x)),
    "grouped softmax": lambda x: layers.Conv1D(
        6, 3, groups=2, activation="softmax"
    )(Dense(4)(x)),
    "softmax of what one unit reads": lambda x: Dense(4, "softmax")(
        Dense(6)(x)
    ),
    "own function": lambda x: Dense(6, activation=_without_mean)(x),
    "own function as a layer": lambda x: layers.Activation(_without_mean)(
        Dense(6)(x)
    ),
    "normalization as activation": lambda x: Dense(
        6, activation=layers.LayerNormalization()
    )(x),
    "slopes as activation": lambda x: Dense(
        4, activation=layers.PReLU("random_normal")
    )(x),
    "places that pool": lambda x: layers.GlobalMaxPooling1D()(
        layers.Permute((2, 1))(Dense(4)(Dense(5)(layers.Permute((2, 1))(x))))
    ),
    # Attention.
    "mask of heads": lambda x: layers.MultiHeadAttention(4, 3)(
        x, x, attention_mask=_mask
    ),
    "own mask of heads": lambda x: _own_attention(x, mask=_mask),
    "own bias of heads": lambda x: _own_attention(x, bias=_bias),
    "scores": lambda x: layers.Attention()(
        [Dense(6)(x), Dense(6)(x)], return_attention_scores=True
    )[1],
    "additive": lambda x: layers.AdditiveAttention()(
        [Dense(6)(x), Dense(6)(x)]
    ),
    "grouped queries": lambda x: layers.GroupQueryAttention(3, 4, 2)(
        Dense(6)(x), Dense(6)(x)
    ),
    # Subclasses that compute something else.
    "standardized kernel": lambda x: Standardized(6, 3)(Dense(5)(x)),
    "heads turned": lambda x: Turned(4, 3)(x, x),
    # Biases of EinsumDense.
    "bias of places": lambda x: layers.EinsumDense(
        "abc,cd->abd", (6, 7), bias_axes="b"
    )(Dense(4)(x)),
    "bias of both": lambda x: layers.EinsumDense(
        "abc,cd->abd", (6, 7), bias_axes="bd"
    )(Dense(4)(x)),
    "bias before": lambda x: ops.swapaxes(
        layers.EinsumDense("abc,bd->adc", (7, 4), bias_axes="d")(Dense(4)(x)),
        1,
        2,
    ),
    # Wrappers.
    "both directions at each step": lambda x: layers.TimeDistributed(
        layers.Bidirectional(layers.LSTM(4))
    )(ops.reshape(Dense(4)(x), (-1, 2, 3, 4))),
    "both directions that convolve": lambda x: layers.Flatten()(
        layers.Bidirectional(layers.ConvLSTM1D(4, 3, padding="same"))(
            ops.reshape(Dense(4)(x), (-1, 2, 3, 4))
        )
    ),
}


def _model(case):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 5])
    return fill(keras.Model(inputs, _ending(_CASES[case](inputs))))


def _outputs(model, values):
    return keras.ops.convert_to_numpy(model(values, training=False))


@pytest.mark.parametrize("mode", ["all", "in", "out", "kernels"])
@pytest.mark.parametrize("case", list(_CASES))
def test_stays_the_same(case, mode):
    model = _model(case)
    random = np.random.default_rng(1)
    for structure in tf_ssl.find_structures(model):
        units = np.flatnonzero(random.random(structure.size) < 0.4)
        roles = {"in": ["in"], "kernels": ["out"]}.get(mode, ["out", "norm"])
        if structure.kind == "input":
            continue
        if mode == "all":
            structure.zero(units)
            continue
        for part in structure.of(roles):
            if mode != "kernels" or not part.is_bias:
                part.zero(units)
    values = random.normal(size=(3, 6, 5)).astype("float32")
    expected = _outputs(model, values)
    actual = _outputs(tf_ssl.shrink(model, sample=values), values)
    atol = 1e-5 * max(np.abs(expected).max(), 1e-6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.pad(Dense(4)(x), [[0, 0], [0, 0], [1, 2]]) + Dense(7)(x),
        lambda x: Dense(6)(x)[..., :4],
        lambda x: ops.tile(Dense(6)(x), (1, 1, 2)),
        lambda x: layers.Rescaling([1.0, 2.0, 3.0, 4.0])(Dense(4)(x)),
        lambda x: ops.slice(Dense(6)(x), (0, 1, 0), (3, 4, 6)),
    ],
    ids=["pad", "slice", "tile", "rescaling", "sized slice"],
)
def test_is_followed(function):
    keras.utils.clear_session()
    inputs = keras.Input([6, 5], batch_size=3)
    model = fill(keras.Model(inputs, _ending(function(inputs))))
    found = tf_ssl.find_structures(model)
    structures = [s for s in found if s.kind != "input"]
    assert structures
    for structure in structures:
        structure.zero([1])
    values = np.random.default_rng(0).normal(size=(3, 6, 5)).astype("float32")
    expected = _outputs(model, values)
    small = tf_ssl.shrink(model, sample=values)
    np.testing.assert_allclose(_outputs(small, values), expected, atol=1e-5)
    units = small.shrink_report.units
    for structure in structures:
        before, after = units[structure.name]
        assert after < before
