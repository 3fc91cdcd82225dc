"""Each family of keras.applications loses a third of its units exactly."""

import keras
import numpy as np
import pytest

import tf_ssl

# Class -> shape of the input.
_FAMILIES = {
    "ConvNeXtTiny": (32, 32, 3),
    "DenseNet121": (32, 32, 3),
    "EfficientNetB0": (32, 32, 3),
    "EfficientNetV2B0": (32, 32, 3),
    "InceptionResNetV2": (75, 75, 3),
    "InceptionV3": (75, 75, 3),
    "MobileNet": (32, 32, 3),
    "MobileNetV2": (32, 32, 3),
    "MobileNetV3Small": (32, 32, 3),
    "NASNetMobile": (32, 32, 3),
    "ResNet50": (32, 32, 3),
    "ResNet50V2": (32, 32, 3),
    "VGG16": (32, 32, 3),
    "Xception": (71, 71, 3),
}


def alive(model, random):
    """Biases, scales and statistics that compute something."""
    for variable in model.variables:
        name = variable.path.rsplit("/", 1)[-1]
        noise = random.standard_normal(variable.shape)
        if name in ("bias", "beta", "moving_mean"):
            variable.assign(0.2 * noise)
        elif name in ("gamma", "moving_variance"):
            variable.assign(1.0 + 0.1 * np.abs(noise))
    for layer in model.layers:
        if hasattr(layer, "adapt_mean"):
            # As the ImageNet weights carry.
            layer.adapt_mean.assign([0.485, 0.456, 0.406])
            layer.adapt_variance.assign([0.229, 0.224, 0.225])
            layer.finalize_state()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(_FAMILIES))
def test_loses_a_third(name):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    shape = _FAMILIES[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=10, classifier_activation=None
    )
    random = np.random.default_rng(0)
    alive(model, random)
    images = (255.0 * random.random((2, *shape))).astype("float32")
    planted = removed = 0
    structures = tf_ssl.find_structures(model)
    for structure in structures:
        if structure.kind != "input":
            units = random.permutation(structure.size)[: structure.size // 3]
            structure.zero(units)
            planted += len(units)
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    small = tf_ssl.shrink(model, sample=images)
    actual = keras.ops.convert_to_numpy(small(images, training=False))
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)
    for before, after in small.shrink_report.units.values():
        removed += before - after
    assert planted
    assert removed >= 0.95 * planted, str(small.shrink_report)
