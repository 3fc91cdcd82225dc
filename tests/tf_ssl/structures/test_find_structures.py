"""Which units are found, and what is left whole."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import assert_same, fill


def of(structures):
    return {s.name: s.size for s in structures if s.kind != "input"}


def test_slices_of_a_filter():
    x = inputs = keras.Input([8, 8, 3])
    x = layers.Conv2D(4, 3, name="a")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(2, name="b")(x))
    structure = tf_ssl.find_structures(model)["a/filters"]
    assert [
        (p.variable.path, p.role, p.units.shape) for p in structure.slices
    ] == [
        ("a/kernel", "out", (1, 1, 1, 4)),
        ("a/bias", "out", (4,)),
        ("norm/gamma", "norm", (4,)),
        ("norm/beta", "norm", (4,)),
        ("norm/moving_mean", "stat", (4,)),
        ("norm/moving_variance", "stat", (4,)),
        ("b/kernel", "in", (6 * 6 * 4, 1)),
    ]
    index = structure.slices[-1].index([1])
    np.testing.assert_array_equal(index[0], np.arange(36) * 4 + 1)
    # By default what makes the unit counts: kernel and bias.
    expected = np.sqrt(
        np.sum(model.get_layer("a").kernel.numpy() ** 2, axis=(0, 1, 2))
    )
    np.testing.assert_allclose(structure.norms(), expected, rtol=1e-6)


def test_joined_layers_share_units():
    x = inputs = keras.Input([8, 8, 3])
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(4, 1, name="b")(a)
    c = layers.Conv2D(5, 1, name="c")(a)
    x = layers.Concatenate()([layers.Add()([a, b]), c])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert of(tf_ssl.find_structures(model)) == {"a/filters": 4, "c/filters": 5}


def test_parts_of_a_layer_get_numbers():
    x = inputs = keras.Input([6])
    a, b = layers.Dense(2, name="a")(x), layers.Dense(3, name="b")(x)
    c = layers.Dense(5, name="c")(x)
    x = layers.Add()([layers.Concatenate()([a, b]), c])
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    structures = tf_ssl.find_structures(model)
    assert of(structures) == {"a/units": 2, "b/units": 3}
    structures["b/units"].zero([1])
    small = tf_ssl.shrink(model)
    assert small.get_layer("c").units == 4
    assert_same(model, small)


def test_barriers():
    x = inputs = keras.Input([6, 6, 3])
    x = layers.Conv2D(4, 3, name="a")(x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3, name="b")(x)
    x = layers.GroupNormalization(2, name="groups")(x)
    x = layers.Reshape([4, 2, 2], name="spread")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(4, activation="softmax", name="c")(x)
    model = keras.Model(inputs, layers.Dense(2, name="d")(x))
    structures = tf_ssl.find_structures(model)
    assert of(structures) == {}
    reasons = dict(structures.skipped)
    assert reasons["a"] == "norm mixes all units of an example"
    assert reasons["b"] == "groups mixes all units of an example"
    assert reasons["c"] == "c has the activation softmax"
    assert reasons["d"] == "it is an output of the model"


def test_exclude():
    x = inputs = keras.Input([6], name="x")
    x = layers.Dense(4, name="a")(x)
    x = layers.Dense(3, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    structures = tf_ssl.find_structures(model, exclude=["a*"])
    assert of(structures) == {"b/units": 3}
    assert ("a/units", "excluded by 'a*'") in structures.skipped
    with pytest.raises(ValueError) as error:
        tf_ssl.find_structures(model, exclude=["c*"])
    assert str(error.value) == (
        "Invalid value for argument exclude. Expected patterns that match a "
        "structure. Received: exclude='c*'. Structures: x/input, a/units, "
        "b/units"
    )
    with pytest.raises(TypeError, match="Expected a tuple of patterns"):
        tf_ssl.find_structures(model, exclude="a*")


def test_rule_of_a_users_layer():
    @keras.saving.register_keras_serializable(package="test")
    class Scale(layers.Layer):
        """Scales each channel by itself."""

        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    def build():
        x = inputs = keras.Input([6])
        x = Scale(name="scale")(layers.Dense(4, name="a")(x))
        return fill(keras.Model(inputs, layers.Dense(2)(x)))

    # Without a rule the layer opens.
    opened = tf_ssl.find_structures(build())
    assert of(opened) == {"a/units": 4}
    paths = [p.variable.path for p in opened["a/units"].slices]
    assert "scale/scale" in paths

    @tf_ssl.structure_rule(Scale)
    class ScaleRule(tf_ssl.rules.Rule):
        def declare(self):
            self.passes()
            self.scales(self.layer.scale)

    model = build()
    structure = tf_ssl.find_structures(model)["a/units"]
    assert "scale/scale" in [p.variable.path for p in structure.slices]
    scale = model.get_layer("scale").scale
    scale.assign(scale.numpy() * [1, 0, 1, 0])
    np.testing.assert_array_equal(structure.dead(), [False, True] * 2)
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").units == 2
    assert_same(model, small)


def test_blocks_of_resnet50():
    model = keras.applications.ResNet50(weights=None, input_shape=[32, 32, 3])
    blocks = tf_ssl.find_blocks(model)
    assert len(blocks) == 16
    block = blocks["conv2_block2_1_conv/block"]
    paths = [p.variable.path for p in block.slices if p.role != "stat"]
    assert len(paths) == 12  # three kernels, biases, scales and shifts
    assert all(path.startswith("conv2_block2_") for path in paths)
    assert block.size == 1
    expected = sum(
        np.sum(p.variable.numpy().astype(np.float64) ** 2)
        for p in block.slices
        if p.role != "stat"
    )
    np.testing.assert_allclose(block.norms(), np.sqrt(expected))
