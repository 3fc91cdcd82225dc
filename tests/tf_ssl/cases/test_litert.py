"""LiteRT computes what the model does, where its delegate alone would not."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import noise
from tf_ssl.exporting.same_padding import with_explicit_padding

layers = keras.layers


def exported_difference(layer, shape, folder):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    path = tf_ssl.export(model, folder / "model.tflite", "tflite")
    return tf_ssl.check_export(model, path, noise(3, *shape))


@pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [
        *((3, 4, 16), (3, 4, 15), (3, 5, 16), (1, 2, 16)),
        *((2, 3, 16), (3, 3, 16), (1, 2, 15), (2, 4, 16)),
    ],
)
def test_strides_larger_than_windows(kernel, stride, size, tmp_path):
    layer = layers.Conv2D(6, kernel, strides=stride, padding="same")
    assert exported_difference(layer, (size, size, 3), tmp_path) < 1e-5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv1D(6, 2, strides=4, padding="same"), (16, 3)),
        (layers.Conv2D(6, (2, 3), strides=4, padding="same"), (16, 15, 3)),
        (layers.Conv2D(6, 2, strides=4, padding="same", groups=2), (16, 16, 4)),
        (layers.DepthwiseConv2D(2, strides=4, padding="same"), (16, 16, 3)),
        (layers.SeparableConv2D(6, 2, strides=4, padding="same"), (16, 16, 3)),
        (layers.Resizing(16, 16), (4, 4, 3)),
        (layers.UpSampling2D(4, interpolation="bilinear"), (4, 4, 3)),
    ],
    ids=lambda x: x.name if isinstance(x, keras.Layer) else str(x),
)
def test_other_layers(layer, shape, tmp_path):
    assert exported_difference(layer, shape, tmp_path) < 1e-5


def test_resize_of_keras_ops(tmp_path):
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, keras.ops.image.resize(images, (16, 16)))
    path = tf_ssl.export(model, tmp_path / "model.tflite", "tflite")
    assert tf_ssl.check_export(model, path, noise(2, 4, 4, 3)) < 1e-5


def test_the_rewritten_model_is_the_model():
    images = keras.Input((16, 14, 3))
    x = layers.Conv2D(4, (2, 3), strides=4, padding="same", name="c")(images)
    model = keras.Model(images, layers.Conv2D(4, 3, padding="same")(x))
    other = with_explicit_padding(model)
    assert [x.name for x in other.layers[1:3]] == ["c_padding", "c"]
    sample = noise(2, 16, 14, 3)
    np.testing.assert_allclose(model(sample), other(sample), atol=1e-6)
    assert with_explicit_padding(other) is other
    assert model.get_layer("c").padding == "same"


def test_sizes_that_are_not_known_are_left():
    images = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 2, strides=4, padding="same")(images)
    model = keras.Model(images, x, name="net")
    assert with_explicit_padding(model) is model


def test_a_wrong_delegate_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tf_ssl.exporting.export.with_explicit_padding", lambda model: model
    )
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 2, strides=4, padding="same")(images)
    model = keras.Model(images, x, name="net")
    path = tf_ssl.export(model, tmp_path / "model.tflite", "tflite")
    with pytest.warns(UserWarning, match="the delegate computes"):
        assert tf_ssl.check_export(model, path, noise(3, 16, 16, 3)) > 0.1
