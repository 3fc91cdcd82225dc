"""Whole models: nested, repeated, custom, of unknown size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.measure.multiply_adds import MultiplyAdds, multiply_adds

layers = keras.layers


def _encoder():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(images)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, layers.Dense(5, name="dense")(x), name="encoder")


_CONV, _DENSE = 36 * 9 * 3 * 4, 4 * 5


def test_nested_models():
    images = keras.Input((8, 8, 3))
    model = keras.Model(
        images, layers.Dense(2, name="dense")(_encoder()(images))
    )
    found = multiply_adds(model)
    assert found == {
        "encoder/conv": _CONV,
        "encoder/dense": _DENSE,
        "dense": 10,
    }
    assert found.total == _CONV + _DENSE + 10


def test_repeated_calls():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    encoder = _encoder()
    model = keras.Model(
        [first, second], layers.Subtract()([encoder(first), encoder(second)])
    )
    assert multiply_adds(model) == {
        "encoder/conv": 2 * _CONV,
        "encoder/dense": 2 * _DENSE,
    }


def test_shared_layers_at_two_sizes():
    conv = layers.Conv1D(4, 3, padding="same", name="conv")
    signal = keras.Input((12, 2))
    model = keras.Model(
        signal,
        [conv(signal), conv(layers.MaxPooling1D(2)(signal))],
    )
    assert multiply_adds(model) == {"conv": (12 + 6) * 3 * 2 * 4}


def test_sequential_in_sequential():
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, name="a")], name="inner"
    )
    model = keras.Sequential([inner, layers.Dense(3, name="a")])
    assert multiply_adds(model) == {"inner/a": 20, "a": 12}


class _Block(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs) @ keras.ops.ones((4, 4))


def test_what_is_in_composite_layers_is_counted():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, _Block(name="block")(inputs))
    found = multiply_adds(model)
    assert found == {"block/dense": 20, "block/matmul": 16}
    assert found.inside("block") == 36
    # On symbolic tensors it shows that this is all.
    assert found.unknown == {}


class _Opaque(_Block):
    def call(self, inputs):
        return tf.matmul(self.dense(inputs), tf.ones((4, 4)))


def test_layers_that_do_not_show_what_they_do_are_unknown():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, _Opaque(name="block")(inputs))
    found = multiply_adds(model)
    assert found == {"block/dense": 20}
    assert found.unknown == {
        "block": "the layer _Opaque has no rule; add one with "
        "@tf_ssl.multiply_add_rule(_Opaque)"
    }


def test_inside():
    found = MultiplyAdds({"a": 1, "a/b": 2, "ab": 4})
    assert found.inside("a") == 3
    assert found.inside("b") is None


def test_unknown_sizes_need_a_sample():
    images = keras.Input((None, None, 3), name="images")
    model = keras.Model(images, layers.Conv2D(4, 3, name="conv")(images))
    with pytest.raises(ValueError) as error:
        multiply_adds(model)
    assert str(error.value) == (
        "Invalid value for argument sample. Expected an example of the model's "
        "input, for input images has the shape (None, None, None, 3) and the "
        "type float32. Received: sample=None"
    )
    sample = np.zeros((2, 8, 8, 3), np.float32)
    assert multiply_adds(model, sample) == {"conv": _CONV}


def test_a_fixed_batch_size_does_not_count():
    images = keras.Input(batch_shape=(6, 8, 8, 3))
    model = keras.Model(images, layers.Conv2D(4, 3, name="conv")(images))
    assert multiply_adds(model) == {"conv": _CONV}


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def call(self, inputs):
        return self.dense(self.dense(inputs))


def test_subclassed_models():
    model = _Subclass(name="net")
    model(np.zeros((1, 4)))
    assert multiply_adds(model, np.zeros((3, 4), np.float32)) == {"dense": 32}
    assert multiply_adds(model) == {"dense": 32}


def test_refuses_models():
    with pytest.raises(TypeError) as error:
        multiply_adds(layers.Dense(3, name="dense"))
    assert str(error.value).startswith(
        "Invalid type for argument model. Expected a keras.Model. Received: "
        "model=<Dense name=dense"
    )
    with pytest.raises(ValueError) as error:
        multiply_adds(keras.Sequential([layers.Dense(3)], name="net"))
    assert str(error.value) == (
        "Invalid value for argument model. Expected a built model. Received: "
        "net, which is not built. Give it an Input, or call it once on data."
    )


# Howard et al., "MobileNets", 2017, table 4.
def test_mobilenet():
    model = keras.applications.MobileNet(weights=None)
    assert multiply_adds(model).total == pytest.approx(569e6, rel=1e-3)
