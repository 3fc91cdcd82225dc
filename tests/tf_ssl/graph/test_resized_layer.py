"""Tests of layers of another size, tf_ssl/graph/live_copy.py."""

import re

import keras
import numpy as np
import pytest

from tests.tf_ssl.graph.layer_cases import L, Lies, Scale, noise
from tf_ssl.graph.copying.live_copy import resized_layer


def built(layer, *inputs):
    layer(*inputs)
    return layer


def resized(layer, changes, *inputs):
    """Called as the graph of a model calls it, with symbols."""
    new = resized_layer(layer, changes)
    assert not new.built or not new.variables
    new(*(keras.Input(batch_shape=x.shape, dtype=str(x.dtype)) for x in inputs))
    assert [v.name for v in new.variables] == [v.name for v in layer.variables]
    assert (new.name, new.dtype_policy) == (layer.name, layer.dtype_policy)
    return new


def double(x):
    """An activation without a registered name."""
    return 2.0 * x


SERIES = noise(2, 5, 4)
CASES = {
    "dense": (lambda: L.Dense(3), {"units": 2}, [noise(2, 4)]),
    "conv": (lambda: L.Conv2D(4, 3), {"filters": 3}, [noise(2, 8, 8, 3)]),
    "embedding": (
        lambda: L.Embedding(9, 4),
        {"output_dim": 3},
        [np.array([[1, 2]])],
    ),
    "lstm": (lambda: L.LSTM(3), {"units": 2}, [SERIES]),
    "gru": (lambda: L.GRU(3, activation=double), {"units": 2}, [SERIES]),
    "attention": (
        lambda: L.MultiHeadAttention(4, 2, use_bias=False),
        {"num_heads": 3},
        [SERIES, SERIES],
    ),
    "both ways": (
        lambda: L.Bidirectional(L.LSTM(3, activation="relu")),
        {"layer": {"units": 2}, "backward_layer": {"units": 2}},
        [SERIES],
    ),
    "distributed": (
        lambda: L.TimeDistributed(L.Dense(3, activation=double)),
        {"layer": {"units": 2}},
        [SERIES],
    ),
    "spectral": (
        lambda: L.SpectralNormalization(L.Dense(3, activation=double)),
        {"layer": {"units": 2}},
        [noise(2, 4)],
    ),
    "conv lstm": (
        lambda: L.ConvLSTM2D(2, 3, activation=double),
        {"filters": 1},
        [noise(2, 3, 6, 6, 2)],
    ),
}


def double_init(shape, dtype=None):
    """An initializer without a registered name."""
    return 2.0 * keras.random.normal(shape, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_another_size(name):
    make, changes, inputs = CASES[name]
    layer = built(make(), *inputs)
    new = resized(layer, changes, *inputs)
    before = sum(np.prod(v.shape) for v in layer.variables)
    assert sum(np.prod(v.shape) for v in new.variables) < before
    new(*inputs)
    again = resized(layer, {}, *inputs)
    for a, b in zip(layer.variables, again.variables, strict=True):
        b.assign(a)
    np.testing.assert_array_equal(layer(*inputs), again(*inputs))


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Dense(3, activation=double),
        lambda: L.BatchNormalization(scale=False),
        lambda: L.LayerNormalization(),
        lambda: L.GroupNormalization(1),
        lambda: L.PReLU(alpha_regularizer=lambda w: 0.1 * w),
        lambda: L.UnitNormalization(),
    ],
)
def test_for_smaller_inputs(make):
    layer = built(make(), noise(2, 4))
    new = resized(layer, {}, noise(2, 3))
    assert new(noise(2, 3)).shape[0] == 2
    for old, variable in zip(layer.variables, new.variables, strict=True):
        assert (old.regularizer is None) == (variable.regularizer is None)
        assert variable.path == old.path


def test_a_memo_keeps_activations_shared():
    shared = L.PReLU()
    one, two = (built(L.Dense(3, activation=shared), noise(2, 4)) for _ in "ab")
    memo = {}
    a, b = (resized_layer(x, {"units": 2}, memo) for x in (one, two))
    assert a.activation is b.activation is memo[id(shared)] is not shared
    assert (memo[id(one)], memo[id(two)]) == (a, b)


def test_serialized_inner_layer():
    layer = built(L.TimeDistributed(L.Dense(3, activation=double)), SERIES)
    config = layer.get_config()["layer"]
    config = {**config, "config": {**config["config"], "units": 2}}
    new = resized(layer, {"layer": config}, SERIES)
    assert new.layer.units == 2 and new.layer.activation is double


def test_an_inner_layer_that_is_given():
    layer = built(L.TimeDistributed(L.Dense(3)), SERIES)
    inner = L.Dense(2)
    assert resized_layer(layer, {"layer": inner}).layer is inner


def test_functions_stay_what_they_are():
    def penalty(w):
        return keras.ops.sum(w * w)

    class Bound:  # not registered
        def __call__(self, w):
            return keras.ops.clip(w, -1, 1)

        def get_config(self):
            return {}

    layer = L.Dense(
        3,
        activation=double,
        kernel_initializer=double_init,
        kernel_regularizer=penalty,
        bias_constraint=Bound(),
        activity_regularizer=penalty,
    )
    new = resized(built(layer, noise(2, 4)), {"units": 2}, noise(2, 4))
    assert new.activation is double and new.kernel_initializer is double_init
    assert new.kernel.regularizer is penalty
    assert new.activity_regularizer is penalty
    assert type(new.bias.constraint) is Bound


def test_layers_as_activations():
    shared = L.PReLU()
    layer = built(L.Dense(3, activation=shared), noise(2, 4))
    new = resized(layer, {"units": 2}, noise(2, 4))
    assert new.activation is not shared
    assert new.activation.alpha.shape == (2,)
    layer = built(L.Conv2D(3, 3, activation=L.PReLU()), noise(2, 8, 8, 1))
    new = resized(layer, {"filters": 2}, noise(2, 8, 8, 1))
    assert new.activation.alpha.shape == (6, 6, 2)
    layer = built(L.Dense(3, activation=L.LeakyReLU(0.3)), noise(2, 4))
    new = resized(layer, {"units": 2}, noise(2, 4))
    assert new.activation.negative_slope == pytest.approx(0.3)
    assert new.activation is not layer.activation
    layer = built(L.LSTM(3, activation=L.PReLU()), SERIES)
    new = resized(layer, {"units": 2}, SERIES)
    assert new.cell.activation.alpha.shape == (2,)


@keras.saving.register_keras_serializable("resized")
class Vectors(keras.initializers.Initializer):
    """Pretrained."""

    def __init__(self, vectors):
        self.vectors = vectors

    def __call__(self, shape, dtype=None):
        """Of one shape."""
        return np.reshape(self.vectors, shape).astype(dtype)

    def get_config(self):
        """The numbers."""
        return {"vectors": np.asarray(self.vectors).tolist()}


@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.Constant(noise(9, 4)),
        Vectors(noise(9, 4)),
        noise(9, 4),
        lambda shape, dtype=None: noise(9, 4),
    ],
    ids=["constant", "own", "array", "function"],
)
def test_an_initializer_of_one_shape(initializer, tmp_path):
    layer = L.Embedding(9, 4, embeddings_initializer=initializer)
    new = resized(
        built(layer, np.array([[1]])), {"output_dim": 3}, np.array([[1]])
    )
    new.embeddings.assign(noise(9, 3))
    x = keras.Input((2,), dtype="int32")
    model = keras.Model(x, new(x))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    inputs = np.array([[1, 8]])
    np.testing.assert_array_equal(model(inputs), again(inputs))


def test_an_initializer_of_any_shape_stays():
    layer = L.Dense(3, bias_initializer=keras.initializers.Constant(2.0))
    new = resized(built(layer, noise(2, 4)), {"units": 2}, noise(2, 4))
    assert new.bias.numpy().tolist() == [2, 2]


def test_trainable_flags_and_types():
    layer = L.MultiHeadAttention(4, 2, dtype="mixed_bfloat16")
    built(layer, SERIES, SERIES)
    layer._query_dense.trainable = False
    layer._key_dense.bias.trainable = False
    new = resized(layer, {"num_heads": 3}, SERIES, SERIES)
    assert not new._query_dense.trainable and new._key_dense.trainable
    assert [v.trainable for v in new.variables] == [
        v.trainable for v in layer.variables
    ]
    assert new.compute_dtype == "bfloat16"
    layer = built(L.Dense(3, trainable=False), noise(2, 4))
    new = resized(layer, {"units": 2}, noise(2, 4))
    assert not new.trainable and not new.kernel.trainable


def test_the_layer_is_not_held():
    layer = built(L.Dense(3), noise(2, 4))
    new = resized(layer, {"units": 2}, noise(2, 4))
    held = [c.cell_contents for c in new.build.__closure__]
    assert layer not in held
    assert new.get_build_config() == {"input_shape": (2, 4)}


@pytest.mark.parametrize(
    "layer, method",
    [(Scale(np.float32(2.0)), "get_config"), (Lies(5), "from_config")],
)
def test_a_config_that_does_not_work(layer, method):
    built(layer, noise(2, 4))
    kind = type(layer).__name__
    message = (
        f"Layer {layer.name} of class {kind} changes its size, and its "
        f"{method} does not work: write get_config, which returns all "
        f"arguments of __init__, for {kind} or for what it holds, or leave the "
        "layer out (exclude=). "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        resized_layer(layer, {"no_such_argument": 3})
