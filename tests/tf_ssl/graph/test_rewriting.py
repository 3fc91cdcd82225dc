"""The same calls in another model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tf_ssl.graph.rewriting import Rewriter
from tf_ssl.graph.walk import build_graph

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="test_rewriting")
class Composite(layers.Layer):
    """A token before the steps, a scale, an array, an inner layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = layers.Dense(4, activation="relu", name="a")

    def build(self, shape):
        self.a.build(shape)
        self.token = self.add_weight((1, 1, 4), "normal", name="token")
        self.scale = self.add_weight((4,), "ones", name="scale")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, 4))
        return ops.concatenate([token, self.a(x) * self.scale], axis=1)

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] + 1, shape[2])


@keras.saving.register_keras_serializable(package="test_rewriting")
class Places(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(9, 4, name="table")

    def build(self, shape):
        self.table.build((None,))

    def call(self, x):
        return x + self.table(ops.arange(ops.shape(x)[1]))

    def compute_output_shape(self, shape):
        return shape


def is_known(layer):
    return not isinstance(layer, Composite | Places)


def rewritten(model):
    return Rewriter(build_graph(model, is_known)).model()


def composed():
    outputs = inputs = keras.Input((5, 4), name="x")
    for layer in (
        layers.Dense(4, name="c_a"),  # a name that the inside would get
        Composite(name="c"),
        Places(name="p"),
    ):
        outputs = layer(outputs)
    outputs = outputs + layers.Dense(4, name="constant")(outputs)
    return keras.Model(inputs, layers.Dense(2, name="c_token")(outputs))


def assert_same(model, other, x=X):
    for a, b in zip(
        keras.tree.flatten(model(x)), keras.tree.flatten(other(x)), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_names_are_unique_and_the_same_each_time():
    model = composed()
    first = rewritten(model)
    assert_same(model, first)
    names = [layer.name for layer in first.layers]
    assert names == [layer.name for layer in rewritten(model).layers]
    assert set(names) == {
        *("x", "c_a", "c_a_1", "c_scale", "c_token_1", "p_table", "constant"),
        *("constant_1", "c_token"),
    }
    operations = [op.name for op in first.operations]
    assert len(set(operations)) == len(operations)
    assert "c_concatenate" in operations


def test_names_of_a_loaded_model_meet_no_others(tmp_path):
    composed().save(tmp_path / "model.keras")
    keras.backend.clear_session()  # operations are numbered from 0 again
    model = keras.models.load_model(tmp_path / "model.keras")
    assert_same(model, rewritten(model))


def test_the_model_is_as_before():
    model = composed()
    before = [
        (len(op._inbound_nodes), len(op._outbound_nodes))
        for op in model.operations
    ]
    other = rewritten(model)
    assert before == [
        (len(op._inbound_nodes), len(op._outbound_nodes))
        for op in model.operations
    ]
    ours = {id(op) for op in model.operations}
    assert ours.isdisjoint(map(id, other.operations))
    ours = {id(v) for v in model.variables}
    assert ours.isdisjoint(map(id, other.variables))


def test_saved_loaded_cloned_rewritten(tmp_path):
    small = rewritten(composed())
    small.save(tmp_path / "model.keras")
    assert_same(small, keras.models.load_model(tmp_path / "model.keras"))
    clone = keras.models.clone_model(small)
    clone.set_weights(small.get_weights())
    assert_same(small, clone)
    assert_same(small, rewritten(small))


def test_exported(tmp_path):
    small = rewritten(composed())
    path = str(tmp_path / "saved")
    small.export(path, verbose=False)
    loaded = tf.saved_model.load(path)
    np.testing.assert_allclose(loaded.serve(X), small(X), rtol=1e-5, atol=1e-6)
    converted = tf.lite.TFLiteConverter.from_saved_model(path).convert()
    lite = tf.lite.Interpreter(model_content=converted)
    (given,), (made,) = lite.get_input_details(), lite.get_output_details()
    lite.resize_tensor_input(given["index"], X.shape)
    lite.allocate_tensors()
    lite.set_tensor(given["index"], X)
    lite.invoke()
    np.testing.assert_allclose(
        lite.get_tensor(made["index"]), small(X), rtol=1e-4, atol=1e-5
    )


def test_weights_have_the_gradients_of_the_variables():
    model = composed()
    small = rewritten(model)

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = ops.mean(model(X) ** 2)
        found = model.trainable_variables
        values = tape.gradient(loss, [v.value for v in found])
        return {
            v.name: tf.convert_to_tensor(g)
            for v, g in zip(found, values, strict=True)
            if v.name in ("token", "scale", "embeddings")
        }

    expected, actual = gradients(model), gradients(small)
    assert set(expected) == set(actual) == {"token", "scale", "embeddings"}
    for name, value in expected.items():
        assert np.abs(value).max() > 0
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-7)


def test_mixed_types_stay_mixed():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        small = rewritten(composed())
    finally:
        keras.config.set_dtype_policy(policy)
    scale = small.get_layer("c_scale")
    assert scale.value.dtype == "float32"
    made = keras.Model(small.inputs, small.get_layer("c_scale").output)
    assert made(X).dtype == scale.output.dtype == "float16"


def test_structures_and_names_of_inputs():
    inputs = {
        "b": keras.Input((4,), name="q"),
        "a": keras.Input((4,), name="p"),
    }
    outputs = {
        "z": [layers.Dense(2)(inputs["a"])],
        "y": (layers.Dense(3)(inputs["b"]), inputs["a"]),
    }
    model = keras.Model(inputs, outputs)
    small = rewritten(model)
    assert [t.name for t in small.inputs] == [t.name for t in model.inputs]
    x = {"a": X[:, 0], "b": X[:, 1]}
    assert keras.tree.map_structure(
        lambda t: tuple(t.shape), small(x)
    ) == keras.tree.map_structure(lambda t: tuple(t.shape), model(x))
    assert_same(model, small, x)


def test_sequential_stays_sequential():
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.Dense(3), layers.ReLU()], name="s"
    )
    small = rewritten(model)
    assert isinstance(small, keras.Sequential) and small.name == "s"
    opened = keras.Sequential([keras.Input((5, 4)), Composite()])
    assert not isinstance(rewritten(opened), keras.Sequential)
    assert_same(opened, rewritten(opened))


@pytest.mark.parametrize("frozen", ["model", "nested", "layer", "all but one"])
def test_trainable(frozen):
    nested = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.Dense(4)], name="nested"
    )
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(nested(shared(inputs))))
    if frozen == "layer":
        nested.layers[0].trainable = False
    elif frozen == "nested":
        nested.trainable = False
    else:
        model.trainable = False
        shared.trainable = frozen == "all but one"
    small = rewritten(model)
    assert len(small.get_layer("shared")._inbound_nodes) == 2
    for part, other in ((model, small), (nested, small.get_layer("nested"))):
        assert part.trainable == other.trainable
        assert [v.trainable for v in part.variables] == [
            v.trainable for v in other.variables
        ]


def test_arrays_and_lambdas():
    inputs = keras.Input((5, 4))
    x = inputs + np.arange(4, dtype="float32")
    x = ops.where(x > 0, x, np.full((4,), -1, "float32"))
    x = layers.Lambda(lambda t: 2 * t)(x)
    model = keras.Model(inputs, [x, ops.max(x, axis=1)])
    assert_same(model, rewritten(model))


def test_variables_as_arguments():
    inputs = keras.Input((5, 4))
    variable = keras.Variable(np.arange(4.0, dtype="float32"), name="v")
    small = rewritten(keras.Model(inputs, inputs * variable))
    np.testing.assert_array_equal(small(X), X * np.arange(4, dtype="float32"))
    assert [v.path for v in small.variables] == ["v/v"]


def test_states_and_masks_of_several_outputs():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    whole, last, state = layers.LSTM(
        3, return_sequences=True, return_state=True
    )(x)
    model = keras.Model(inputs, [layers.LSTM(2)(whole), last, state])
    ids = np.array([[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert_same(model, rewritten(model), ids)


@keras.saving.register_keras_serializable(package="test_rewriting")
class Closed(layers.Layer):
    """In training it does something else; its mask counts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None, training=None):
        x = 2 * x if training else x
        return x if mask is None else x * ops.cast(mask[..., None], x.dtype)


@keras.saving.register_keras_serializable(package="test_rewriting")
class Opened(Closed):
    def call(self, x):
        return ops.relu(x)


@pytest.mark.parametrize("opens", [False, True])
def test_masks_come_to_closed_layers_behind_opened_ones(opens, tmp_path):
    class Decides(Rewriter):
        def opens(self, nested):
            return opens or type(nested.op) is Opened

    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = Opened(name="opened")(x)
    model = keras.Model(inputs, ops.sum(Closed(name="closed")(x), axis=1))
    rewriter = Decides(
        build_graph(model, lambda layer: not isinstance(layer, Closed))
    )
    small = rewriter.model()
    assert rewriter.training_lost == (["closed"] if opens else [])
    ids = np.array([[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert_same(model, small, ids)
    small.save(tmp_path / "small.keras")
    assert_same(model, keras.models.load_model(tmp_path / "small.keras"), ids)


def test_one_op_called_in_two_graphs():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    nested = keras.Model(inputs, shared(inputs), name="nested")
    model = keras.Model(inputs, shared(nested(inputs)))
    small = rewritten(model)
    assert small.get_layer("shared") is small.get_layer("nested").get_layer(
        "shared"
    )
