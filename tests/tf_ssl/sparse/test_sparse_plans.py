"""Tests of tf_ssl/sparse/sparse_plans.py."""

import keras
import pytest

import custom_ops
from custom_ops import library
from tf_ssl.sparse.sparse_plans import PruningGain, pruning_gains

layers = keras.layers


@pytest.mark.skipif(library.ops() is None, reason="the C++ ops are not built")
def test_gains_of_each_layer():
    images = keras.Input((14, 14, 256))
    conv = layers.Conv2D(256, 3, padding="same", name="conv")
    x = conv(conv(images))
    x = layers.Conv2D(64, 1, data_format="channels_last", name="one")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Dense(10, name="dense")(layers.Flatten()(x))
    gains = pruning_gains(keras.Model(images, x), batch_size=4)
    assert list(gains) == ["conv", "one", "dense"]
    gain = gains["conv"]
    assert list(gain.speed_ups) == [0.8, 0.9, 0.95]
    assert gain.speed_ups[0.8] < gain.speed_ups[0.9] < gain.speed_ups[0.95]
    plan = custom_ops.plan(
        (3, 3, 256, 256), (4, 14, 14, 256), padding="SAME", density=0.1
    )
    assert gain.speed_ups[0.9] == pytest.approx(plan.speed_up)
    assert gain.break_even == plan.break_even
    assert gain.dense_ms == pytest.approx(2 * plan.dense_ms)  # called twice


def test_text():
    gain = PruningGain(0.25, {0.8: 2.5, 0.9: 4.0}, 1.5)
    assert str(gain) == (
        "1.500 ms dense, faster from 25% zeros on, 2.50x at 80%, 4.00x at 90%"
    )
    assert str(PruningGain(None, {}, 1.5)) == "1.500 ms dense, gains nothing"


def test_without_the_library_nothing_gains(monkeypatch):
    monkeypatch.setattr(
        custom_ops,
        "status",
        lambda: {"implementation": "fallback", "reason": "not built"},
    )
    monkeypatch.setattr(custom_ops, "describe", lambda: "plain TensorFlow")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="fc")])
    gains = pruning_gains(model)
    assert gains == {"fc": PruningGain(None, {}, None)}
    assert str(gains["fc"]) == "gains nothing: plain TensorFlow"


class _Block(keras.Layer):
    """A residual block, of layers that have the same names in each."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, "relu", name="dense")
        self.second = layers.Dense(4, name="out")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 8))

    def call(self, inputs):
        return keras.ops.add(inputs, self.second(self.first(inputs)))


@pytest.mark.skipif(library.ops() is None, reason="the C++ ops are not built")
def test_layers_in_composite_layers():
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, _Block(name="block")(inputs))
    assert list(pruning_gains(model)) == ["block/dense", "block/out"]
