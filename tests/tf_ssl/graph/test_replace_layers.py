"""Tests of tf_ssl/graph/replace_layers.py."""

import keras
import numpy as np
import pytest

from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.walk import build_graph

layers = keras.layers


def halves(layer, name="first"):
    """Two dense layers that compute what one does."""
    units = layer.units
    first = layers.Dense(units, use_bias=False, name=name)
    second = layers.Dense(units, name=layer.name)
    first.build((None, layer.kernel.shape[0]))
    second.build((None, units))
    first.kernel.assign(layer.kernel)
    second.kernel.assign(np.eye(units))
    second.bias.assign(layer.bias)
    return [first, second]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def same(a, b, inputs):
    for one, other in zip(
        keras.tree.flatten(a(inputs)),
        keras.tree.flatten(b(inputs)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_sequential_stays_sequential():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.ReLU(), layers.Dense(2)]
    )
    new = replace_layers(model, {model.layers[2]: halves(model.layers[2])})
    assert type(new) is keras.Sequential
    assert len(new.layers) == 4
    same(model, new, noise(5, 4))
    new.layers[0].kernel.assign(np.zeros((4, 3)))
    assert model.layers[0].kernel.numpy().any()


def test_graph_with_operations_shared_layers_and_several_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, name="shared", activation="tanh")
    dense = layers.Dense(4, name="dense")
    x = keras.ops.concatenate([shared(a), shared(b) * 2.0 + dense(a)], axis=-1)
    model = keras.Model({"a": a, "b": b}, {"sum": dense(shared(b)), "all": x})
    new = replace_layers(model, {dense: halves(dense)})
    inputs = {"a": noise(3, 4), "b": noise(3, 4) + 1}
    assert set(new(inputs)) == {"sum", "all"}
    same(model, new, inputs)
    assert new.count_params() == model.count_params() + 16
    assert len([x for x in new.layers if x.name == "shared"]) == 1


def test_nested_models():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="deep")], name="inner"
    )
    x = keras.Input((4,))
    model = keras.Model(x, inner(inner(x)) + layers.Dense(4)(x))
    deep = inner.layers[0]
    new = replace_layers(model, {deep: halves(deep)})
    same(model, new, noise(3, 4))
    assert [x.name for x in new.get_layer("inner").layers] == ["first", "deep"]


def test_statistics_are_copied():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    model.layers[0].moving_mean.assign(noise(4))
    same(model, replace_layers(model, {}), noise(3, 4))


def test_layer_of_another_model():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    other = layers.Dense(3, name="other")
    with pytest.raises(ValueError) as error:
        replace_layers(model, {other: [other]})
    assert str(error.value) == (
        "Invalid value for argument successors. Expected layers of the model. "
        "Received: other"
    )


def test_model_that_is_not_built():
    model = keras.Sequential([layers.Dense(3)], name="net")
    with pytest.raises(ValueError) as error:
        replace_layers(model, {})
    assert str(error.value) == (
        "Invalid value for argument model. Expected a built Functional or "
        "Sequential model. Received: <Sequential name=net, built=False>. Build "
        "it first: give it an Input, or call it once."
    )


class _Block(layers.Layer):
    """Two dense layers, the same names in each block."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, name="dense")
        self.second = layers.Dense(4, name="other")

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, inputs):
        return inputs + self.second(self.first(inputs))


def test_layers_in_composite_layers():
    inputs = keras.Input((4,))
    one, two, three = (_Block(name=name) for name in ("one", "two", "three"))
    model = keras.Model(inputs, three(two(one(inputs))))
    graph = build_graph(model, lambda layer: type(layer) is not _Block)
    new = replace_layers(
        model,
        {
            one.first: halves(one.first),
            two.first: halves(two.first, "dense_half"),
        },
        graph,
    )
    same(model, new, noise(3, 4))
    names = [x.name for x in new.layers if hasattr(x, "kernel")]
    assert names == [
        *("one_dense_first", "one_dense", "one_other"),
        *("two_dense_half", "two_dense", "two_other"),
    ]
    # Nothing of this one was replaced.
    assert isinstance(new.get_layer("three"), _Block)
    assert model.layers[1] is one and one.first.name == "dense"


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def call(self, inputs):
        return {"out": self.dense(inputs["a"]) + inputs["b"]}


def test_subclassed_models():
    model = _Subclass(name="net")
    inputs = {"a": noise(3, 4), "b": noise(3, 4)}
    model(inputs)
    new = replace_layers(model, {model.dense: halves(model.dense)})
    same(model, new, inputs)
    assert isinstance(new, keras.Model) and new.name == "net"
    assert set(new(inputs)) == {"out"}


class _Scale(layers.Layer):
    """Keras finds no shape of what it makes of these arguments."""

    def build(self, shape):
        self.scale = self.add_weight(shape[-1:], "ones", name="scale")

    def call(self, x, cache=None):
        return x * self.scale

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class _Outer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.scaled = _Scale(name="scale")

    def build(self, shape):
        self.dense.build(shape)
        self.scaled.build(shape)

    def call(self, x):
        return self.scaled(self.dense(x), cache=None)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_composite_layers_that_cannot_be_called_are_opened():
    inputs = keras.Input((4,))
    outer = _Outer(name="outer")
    model = keras.Model(inputs, outer(inputs))
    outer.scaled.scale.assign([1.0, 2.0, 3.0, 4.0])
    graph = build_graph(model, lambda layer: layer is outer.dense)
    new = replace_layers(model, {outer.dense: halves(outer.dense)}, graph)
    same(model, new, noise(3, 4))
    assert not any(isinstance(x, _Scale) for x in new.layers)
