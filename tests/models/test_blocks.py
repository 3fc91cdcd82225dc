import keras
import numpy as np
import pytest

from models.blocks import conv_bn


@pytest.mark.parametrize("relu", [True, False])
def test_layers_and_names(relu):
    images = keras.Input((8, 6, 3))
    x = conv_bn(
        images,
        4,
        3,
        keras.initializers.HeNormal(0),
        "a_{}_1",
        strides=2,
        relu=relu,
        scale=False,
        momentum=0.5,
    )
    model = keras.Model(images, x)
    names = ["a_conv_1", "a_bn_1", "a_relu_1"][: 3 if relu else 2]
    assert [layer.name for layer in model.layers[1:]] == names
    assert model.output_shape == (None, 4, 3, 4)
    bn = model.get_layer("a_bn_1")
    assert (bn.scale, bn.momentum) == (False, 0.5)
    assert [v.path for v in model.trainable_variables] == [
        "a_conv_1/kernel",
        "a_bn_1/beta",
    ]


def test_initializer_is_that_of_the_kernel():
    images = keras.Input((8, 6, 3))
    x = conv_bn(images, 4, 3, keras.initializers.HeNormal(7), "{}")
    kernel = keras.Model(images, x).trainable_variables[0].numpy()
    want = keras.initializers.HeNormal(7)((3, 3, 3, 4)).numpy()
    np.testing.assert_array_equal(kernel, want)
