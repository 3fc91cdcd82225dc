"""Shrunk against zeroed on random graphs."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import MODES, assert_same, fill

_ACTIVATIONS = ["relu", "silu", "sigmoid", "softplus", "tanh", None]


def random_graph(random):
    """Convolutions, norms, joins, all at 6x6 until the end."""
    inputs = keras.Input([6, 6, int(random.integers(1, 4))])
    tensors = [inputs]

    def some():
        # Mostly the last one, or most of the graph would lead nowhere.
        last = random.random() < 0.7
        return tensors[-1 if last else random.integers(len(tensors))]

    def convolution():
        groups = int(random.choice([1, 1, 2]))
        x = some()
        if x.shape[-1] % groups:
            groups = 1
        return layers.Conv2D(
            2 * int(random.integers(1, 5)),
            int(random.choice([1, 2, 3])),
            padding="same",
            groups=groups,
            use_bias=bool(random.integers(2)),
            activation=random.choice(_ACTIVATIONS),
        )(x)

    def depthwise():
        return layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=int(random.integers(1, 3))
        )(some())

    def join():
        x = some()
        y = layers.Conv2D(x.shape[-1], 1)(some())
        kind = random.choice(["add", "multiply", "gate", "concatenate"])
        if kind == "add":
            return layers.Add()([x, y])
        if kind == "multiply":
            return x * y
        if kind == "gate":
            y = layers.GlobalAveragePooling2D(keepdims=True)(y)
            y = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)
            return layers.Multiply()([x, y])
        return layers.Concatenate()([x, y])

    def unary():
        return [
            layers.BatchNormalization(),
            layers.Activation("gelu"),
            layers.LeakyReLU(),
            layers.MaxPooling2D(3, strides=1, padding="same"),
            layers.AveragePooling2D(3, strides=1, padding="same"),
            layers.Dropout(0.5),
        ][random.integers(6)](some())

    for _ in range(9):
        make = [convolution, convolution, depthwise, join, unary, unary]
        tensors.append(make[random.integers(len(make))]())
    x = layers.Concatenate()([some(), tensors[-1]])
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(4, activation=random.choice(_ACTIVATIONS))(x)
    return keras.Model(inputs, [layers.Dense(2)(x), some()])


@pytest.mark.parametrize("seed", range(14))
def test_random_graph(seed):
    random = np.random.default_rng(seed)
    model = fill(random_graph(random), seed)
    for structure in tf_ssl.find_structures(model):
        if structure.kind == "input":
            continue
        units = np.flatnonzero(random.random(structure.size) < 0.4)
        MODES[random.choice(list(MODES))](structure, units)
    small = tf_ssl.shrink(model)
    assert_same(model, small)
    # What went was all that was dead, but for what the report names.
    kept = {name: count for name, count, _ in small.shrink_report.kept}
    for structure in tf_ssl.find_structures(model):
        if structure.kind != "input":
            before, after = small.shrink_report.units[structure.name]
            dead = int(structure.dead().sum())
            assert before - after >= dead - kept.get(structure.name, 0)
