"""Which rule a layer gets, and what is said where there is none."""

import keras

from tf_ssl.measure.multiply_add_table import multiply_add_rule
from tf_ssl.measure.multiply_adds import multiply_adds

layers = keras.layers


def _model(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, layer(*inputs))


def test_what_is_not_counted():
    images = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(images)
    x = layers.ReLU()(x)
    x = layers.LayerNormalization()(x)
    x = layers.Add()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
    found = multiply_adds(keras.Model(images, layers.Flatten()(x)))
    assert found == {}
    assert found.unknown == {}


def test_unknown_operations_are_named():
    first, second = keras.Input((4,)), keras.Input((5,))
    outputs = keras.ops.tensordot(first, second, axes=0)
    model = keras.Model([first, second], outputs)
    (reason,) = multiply_adds(model).unknown.values()
    assert reason == (
        "the operation Tensordot has no rule; add one with "
        '@tf_ssl.multiply_add_rule("Tensordot")'
    )


class _Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_subclass_inherits_the_rule():
    assert multiply_adds(_model(_Doubled(4), (5,))).total == 20


class _Halved(layers.Dense):
    def call(self, inputs):
        return super().call(inputs) / 2


def test_rules_of_users():
    @multiply_add_rule(_Halved)
    def halved(layer, call):
        (shape,) = call.input_shapes
        return 7 * shape[0]

    assert multiply_adds(_model(_Halved(4), (5,))).total == 7
