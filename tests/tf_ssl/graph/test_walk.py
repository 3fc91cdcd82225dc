"""A model as a list of calls."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tf_ssl.graph.sources import Source
from tf_ssl.graph.walk import Bind, Call, Nested, build_graph, functional


class Composite(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.scale = self.add_weight((4,), name="scale")

    def call(self, x, mask=None):
        return self.dense(x) * self.scale


def is_known(layer):
    return not isinstance(layer, Composite)


def kinds(graph):
    return [type(call.op).__name__ for call in graph.calls()]


def test_calls_of_nested_graphs_stand_in_their_place():
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, Composite(name="c")(inputs), name="nested")
    model = keras.Model(inputs, ops.relu(nested(inputs) + 1))
    graph = build_graph(model, is_known)
    assert kinds(graph) == [
        *("Bind", "Bind", "Dense", "Source", "Multiply", "Bind", "Bind"),
        *("Add", "Relu"),
    ]
    outer, add, _ = graph.items
    assert isinstance(outer, Nested) and outer.is_model
    (_, inner, _) = outer.graph.items
    assert isinstance(inner, Nested) and not inner.is_model
    assert inner.parent is outer and outer.parent is None
    assert all(c.parent is inner for c in inner.graph.items)
    assert add.arguments["x2"] == 1
    # Each tensor comes from what is before it.
    known = set(graph.inputs)
    for call in graph.calls():
        assert known.issuperset(call.inputs)
        known.update(call.outputs)
    assert known.issuperset(graph.outputs)


def test_without_is_known_composites_stay_closed():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Composite()(inputs))
    assert kinds(build_graph(model)) == ["Composite"]


def test_masks_are_no_inputs():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = Composite()(x)
    model = keras.Model(inputs, layers.LSTM(3)(x))
    graph = build_graph(model, is_known)
    lstm = next(c for c in graph.calls() if isinstance(c.op, layers.LSTM))
    assert len(lstm.inputs) == 1
    assert kinds(graph).count("NotEqual") == 1


def test_arguments_and_positions():
    inputs = [keras.Input((2, 4)), keras.Input((3, 4))]
    attention = layers.MultiHeadAttention(2, 3)
    model = keras.Model(inputs, attention(inputs[0], value=inputs[1]))
    (call,) = build_graph(model).calls()
    assert call.arguments["value"] is call.inputs[1]
    assert call.index(call.inputs[1]) == 1
    assert call.index(call.outputs[0]) is None
    assert call.input_shapes == [(None, 2, 4), (None, 3, 4)]
    assert call.output_shapes == [(None, 2, 4)]


def test_variables_and_arrays_as_arguments():
    inputs = keras.Input((4,))
    variable = keras.Variable(np.ones(4, "float32"), name="v")
    outputs = ops.where(inputs > 0, inputs * variable, np.zeros(4, "float32"))
    graph = build_graph(keras.Model(inputs, outputs))
    sources = [c for c in graph.calls() if isinstance(c.op, Source)]
    assert [c.op.variable for c in sources] == [variable]
    where = graph.items[-1]
    assert isinstance(where, Call) and len(where.inputs) == 2


def test_length():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    assert build_graph(model).inputs[0].shape == (None, None, 4)
    assert build_graph(model, length=7).inputs[0].shape == (None, 7, 4)
    assert model.inputs[0].shape == (None, None, 4)


def test_large_sizes_are_no_batch():
    inputs = keras.Input((4,))
    outputs = layers.Dense(1009)(layers.Dense(2018)(inputs))
    graph = build_graph(keras.Model(inputs, outputs), is_known)
    assert graph.outputs[0].shape == (None, 1009)


def test_time_distributed_models_are_nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.TimeDistributed(inner)(inputs))
    assert kinds(build_graph(model)) == ["Bind", "Dense", "Bind"]
    assert any(isinstance(c.op, Bind) for c in build_graph(model).calls())


def test_functional_is_a_model_that_runs_its_graph():
    made = [keras.Input((4,)), layers.Dense(3)]

    class Twice(keras.Sequential):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x)

    assert functional(keras.Sequential(made)) is not None
    assert functional(Twice(made)) is None
    assert functional(layers.Dense(2)) is None


def test_unbuilt():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError) as error:
        build_graph(model)
    assert str(error.value) == (
        "Invalid value for argument model. Expected a built Functional or "
        f"Sequential model. Received: {model!r}. Build it first: give it an "
        "Input, or call it once."
    )


def test_variables_of_called_layers_as_arguments():
    dense = layers.Dense(4, name="d")
    inputs = keras.Input((4,))
    outputs = ops.matmul(dense(inputs), dense.kernel)
    with pytest.raises(ValueError) as error:
        build_graph(keras.Model(inputs, outputs))
    assert str(error.value) == (
        "Invalid value for argument model. Expected variables of layers to be "
        "read by these alone. Received: d/kernel of layer d, which is an "
        "argument of another operation too. Let both be one layer of your own "
        "with a @tf_ssl.structure_rule."
    )


def test_a_variable_that_two_layers_share():
    class Reads(layers.Layer):
        def __init__(self, dense, **kwargs):
            super().__init__(**kwargs)
            self.dense = dense

        def call(self, x):
            return ops.matmul(x, self.dense.kernel)

    dense = layers.Dense(4, name="d")
    inputs = keras.Input((4,))
    outputs = Reads(dense, name="r")(dense(inputs))
    graph = build_graph(
        keras.Model(inputs, outputs), lambda x: not isinstance(x, Reads)
    )
    assert kinds(graph) == ["Dense", "Reads"]
    assert graph.closed == [
        (
            "r",
            "it reads d/kernel itself, a variable of d, which is called too",
        )
    ]
