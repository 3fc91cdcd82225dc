import keras
import numpy as np
import tensorflow as tf

from tf_ssl.measure.model_layers import model_layers, num_bytes, num_parameters

layers = keras.layers


def _found():
    inner_in = keras.Input((4,))
    inner = keras.Model(
        inner_in, layers.Dense(3, name="dense")(inner_in), name="inner"
    )
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, name="words")(words)
    x = layers.Bidirectional(layers.LSTM(2, dropout=0.5), name="both")(x)
    x = inner(x)
    model = keras.Model(words, keras.ops.relu(x))
    return model, model_layers(model, np.zeros((2, 6), np.int32), 2)


def test_layers():
    model, found = _found()
    names = list(found)
    assert names[:3] == ["words", "both", "inner/dense"]
    assert len(names) == 4  # and relu: what is inside both belongs to it
    both = found["both"]
    assert both.multiply_adds == 2 * 6 * 4 * 2 * (4 + 2)
    assert both.kernels == ((4, 8), (2, 8)) * 2
    assert both.outputs == ((4,),)
    assert both.reads == {"words"}
    assert found["words"].multiply_adds == 0
    assert found[names[3]].multiply_adds is None
    assert found[names[3]].variables == []


def test_parameters_are_those_of_keras():
    model, found = _found()
    variables = [v for layer in found.values() for v in layer.variables]
    assert num_parameters(variables) == model.count_params()
    assert num_bytes(variables) == 4 * model.count_params()
    assert num_parameters(variables * 2) == model.count_params()


def test_bytes_of_other_types():
    dense = layers.Dense(3, dtype="float16")
    dense.build((None, 4))
    assert num_bytes(dense.variables) == 2 * 15


def test_unknown_layers():
    class Square(keras.Layer):
        def call(self, x):
            return tf.square(x)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Square(name="square")(inputs))
    found = model_layers(model, np.zeros((2, 4), np.float32), 2)
    assert found["square"].multiply_adds is None
    assert found["square"].unknown == (
        "square: the layer Square has no rule; add one with "
        "@tf_ssl.multiply_add_rule(Square)",
    )
