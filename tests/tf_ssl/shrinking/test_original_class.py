"""Smaller models in the class that the original has."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from tests.tf_ssl.hub import backbones
from tf_ssl.shrinking.original_class import original_class

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="test_original_class")
class Blocks(keras.Model):
    def __init__(self, units, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.depth = units, depth
        self.inner = [
            layers.Dense(units, "relu", name=f"inner{i}") for i in range(depth)
        ]
        self.outer = [layers.Dense(4, name=f"outer{i}") for i in range(depth)]

    def build(self, shape):
        for inner, outer in zip(self.inner, self.outer, strict=True):
            inner.build(shape)
            outer.build((None, self.units))

    def call(self, x):
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(inner(x))
        return x

    def get_config(self):
        config = {"units": self.units, "depth": self.depth}
        return {**super().get_config(), **config}


def model_of(*gone):
    """A model of two blocks, of which units are zero."""
    model = Blocks(6, name="blocks")
    model(X)
    for i, units in enumerate(gone):
        tf_ssl.find_structures(model)[f"inner{i}/units"].zero(list(units))
    return model


def test_in_the_original_class():
    model = model_of((0, 2), (1, 5))
    before = [v.numpy() for v in model.variables]
    small = tf_ssl.shrink(model, sample=X)
    again = original_class(model, small, sample=X, units=4)
    assert type(again) is Blocks and again.units == 4
    np.testing.assert_allclose(again(X), model(X), rtol=1e-5, atol=1e-6)
    ours = {id(v) for v in (*model.variables, *small.variables)}
    assert ours.isdisjoint(id(v) for v in again.variables)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_without_a_sample():
    model = model_of((0, 2), (1, 5))
    small = tf_ssl.shrink(model, sample=X)
    assert original_class(model, small, units=4).units == 4


def test_unknown_entry():
    model = model_of((0, 2), (1, 5))
    small = tf_ssl.shrink(model, sample=X)
    with pytest.raises(ValueError) as error:
        original_class(model, small, sample=X, unit=4)
    assert str(error.value) == (
        "Invalid entries of the config of Blocks. Expected some of "
        f"{sorted(model.get_config())}. Received: ['unit']"
    )


@pytest.mark.parametrize("kind", ["shrunk of another", "not shrunk"])
def test_foreign_small(kind):
    model = model_of((0, 2), (1, 5))
    other = Blocks(6, depth=1, name="other")
    other(X)
    small = tf_ssl.shrink(other, sample=X) if kind[0] == "s" else other
    with pytest.raises(ValueError) as error:
        original_class(model, small, sample=X, units=4)
    assert str(error.value) == (
        "Invalid value for argument small. Expected what "
        f"tf_ssl.shrink(model) returned for blocks. Received: {small!r}"
    )


@pytest.mark.parametrize(
    "changes, shape", [({"units": 4}, (4, 4)), ({}, (4, 6))]
)
def test_blocks_that_differ_and_changes_that_are_missing(changes, shape):
    gone = ((0, 2), (1,)) if changes else ((0, 2), (1, 5))
    model = model_of(*gone)
    small = tf_ssl.shrink(model, sample=X)
    name, ours = ("inner1", (4, 5)) if changes else ("inner0", (4, 4))
    with pytest.raises(ValueError) as error:
        original_class(model, small, sample=X, **changes)
    path = next(v.path for v in model.variables if f"{name}/kernel" in v.path)
    assert str(error.value) == (
        f"The smaller model has the shape {ours} for {path}, Blocks with "
        f"{changes} has {shape}: a change is missing, or the config has one "
        "number for what differs by layer."
    )


def test_another_number_of_variables():
    model = model_of((0, 2), (1, 5))
    small = tf_ssl.shrink(model, sample=X)
    with pytest.raises(ValueError) as error:
        original_class(model, small, sample=X, units=4, depth=1)
    assert str(error.value) == (
        "Blocks with {'units': 4, 'depth': 1} has 4 variables, blocks has 8: "
        "changes may state other sizes, not other layers."
    )


def test_a_call_that_does_something_else():
    model = model_of((0, 2), (1, 5))
    small = tf_ssl.shrink(model, sample=X)
    small.get_layer("outer0").bias.assign_add(np.ones(4))
    again = original_class(model, small, sample=X, units=4)
    np.testing.assert_allclose(again(X), small(X), rtol=1e-5, atol=1e-6)
    call = Blocks.call
    Blocks.call = lambda self, x: 2 * call(self, x)
    try:
        with pytest.raises(RuntimeError, match="of the rebuilt model differs"):
            original_class(model, small, sample=X, units=4)
    finally:
        Blocks.call = call


@pytest.mark.skipif(not backbones.has_keras_hub(), reason="needs keras_hub")
def test_bert():
    family = backbones.families()["bert"]
    model = family.build()
    x = family.inputs(model, 2)
    structures = tf_ssl.find_structures(model, length=family.length)
    inner = [s for s in structures if len(s.norms()) == 48]
    assert len(inner) == 2
    for i, structure in enumerate(inner):
        structure.zero([i, 7, 30, 31])
    expected = keras.tree.map_structure(np.asarray, model(x))
    small = tf_ssl.shrink(model, sample=x, length=family.length)
    assert set(small.shrink_report.units.values()) >= {(48, 44)}
    again = original_class(model, small, sample=x, intermediate_dim=44)
    assert type(again) is type(model)
    made = again(x)
    for key, value in expected.items():
        np.testing.assert_allclose(made[key], value, rtol=1e-4, atol=1e-5)
