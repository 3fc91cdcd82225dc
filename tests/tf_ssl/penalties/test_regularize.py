"""Regularizers over a model: which kernels, which kinds, and that they act."""

import keras
import numpy as np
import pytest

from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.penalties.regularize import regularize
from tf_ssl.penalties.regularizer_sum import RegularizerSum

L = keras.layers


def _model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([8, 8, 4])
    x = L.Conv2D(4, 3, groups=2, name="conv1")(inputs)
    x = L.DepthwiseConv2D(3, name="depth")(x)
    x = L.Conv2D(4, 1, name="conv2", kernel_regularizer="l2")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.Flatten()(x)
    return keras.Model(inputs, L.Dense(3, name="logits")(x))


def _kinds(found):
    return {
        path: (r.kind, r.conv_groups, r.groups, r.strength) for path, r in found
    }


def test_kinds_come_from_the_layers():
    model = _model()
    found = regularize(model, {"*": GroupLasso(0.1, "channel")})
    assert _kinds(found) == {
        "conv1/kernel": ("conv", 2, "channel", 0.1),
        "depth/kernel": ("depthwise", 1, "channel", 0.1),
        "conv2/kernel": ("conv", 1, "channel", 0.1),
        "logits/kernel": ("dense", 1, "channel", 0.1),
    }
    for path, regularizer in found:
        layer = model.get_layer(path.split("/")[0])
        assert layer.kernel.regularizer is regularizer
        name = "depthwise" if "depth" in path else "kernel"
        assert getattr(layer, f"{name}_regularizer") is regularizer
    assert model.get_layer("bn").gamma.regularizer is None
    assert model.get_layer("conv1").bias.regularizer is None


def test_an_explicit_kind_stays():
    model = _model()
    ((_, found),) = regularize(
        model, {"conv1": GroupLasso(0.1, kind="conv", conv_groups=1)}
    )
    assert (found.kind, found.conv_groups) == ("conv", 1)


def test_the_last_pattern_counts():
    found = regularize(
        _model(),
        {
            "*": {"strength": 0.1},
            "conv?": {"strength": 0.2, "groups": ["filter", "shape"]},
            "conv2/kernel": {"strength": 0.3},
            "logits": None,
        },
    )
    assert _kinds(found) == {
        "conv1/kernel": ("conv", 2, ("filter", "shape"), 0.2),
        "depth/kernel": ("depthwise", 1, "filter", 0.1),
        "conv2/kernel": ("conv", 1, "filter", 0.3),
    }


def test_none_clears():
    model = _model()
    assert regularize(model, {"conv2": None}) == []
    assert model.get_layer("conv2").kernel.regularizer is None
    assert model.get_layer("conv2").kernel_regularizer is None
    assert model.losses == []


def test_a_list_adds():
    model = _model()
    parts = [{"strength": 0.1}, GroupLasso(0.2, "shape"), "l1"]
    ((_, found),) = regularize(model, {"conv1": parts})
    assert type(found) is RegularizerSum
    filters, shapes, l1 = found.regularizers
    assert (filters.strength, filters.conv_groups) == (0.1, 2)
    assert (shapes.groups, shapes.conv_groups) == ("shape", 2)
    assert isinstance(l1, keras.regularizers.L1)


@pytest.mark.parametrize("keep", [False, True])
def test_keep(keep):
    model = _model()
    for strength in (0.1, 0.2):  # the second replaces the first's GroupLasso
        ((_, found),) = regularize(
            model, {"conv2": GroupLasso(strength)}, keep=keep
        )
    if keep:
        l2, found = found.regularizers
        assert isinstance(l2, keras.regularizers.L2)
    assert found.strength == 0.2


def test_the_next_fit_applies_it_without_compiling():
    model = keras.Sequential(
        [keras.Input([4]), L.Dense(3, name="hidden"), L.Dense(2)]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    x, y = np.zeros([2, 4]), np.zeros([2, 2])
    assert model.fit(x, y, verbose=0).history["loss"] == [0.0]
    assert model.evaluate(x, y, verbose=0) == 0.0
    ((_, found),) = regularize(model, {"hidden/kernel": GroupLasso(0.1)})
    expected = float(found(model.get_layer("hidden").kernel))
    assert expected > 0.1
    history = model.fit(x, y, verbose=0).history
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0), expected, rtol=1e-5
    )


def test_a_saved_model_keeps_it(tmp_path):
    inputs = keras.Input([5, 3])
    x = L.Bidirectional(L.LSTM(2, name="lstm"), name="both")(inputs)
    model = keras.Model(inputs, L.Dense(3, name="logits")(x))
    found = regularize(model, {"*": GroupLasso(0.1)})
    assert [path for path, _ in found] == [
        "both/forward_lstm/lstm_cell/kernel",
        "both/forward_lstm/lstm_cell/recurrent_kernel",
        "both/backward_lstm/lstm_cell/kernel",
        "both/backward_lstm/lstm_cell/recurrent_kernel",
        "logits/kernel",
    ]
    assert {r.kind for _, r in found} == {"lstm", "dense"}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses) == 5
    np.testing.assert_allclose(sum(loaded.losses), sum(model.losses), rtol=1e-6)


def test_names_of_outer_layers_match():
    model = keras.Sequential(
        [keras.Input([5, 3]), L.LSTM(2, name="lstm1"), L.Dense(3)], name="net"
    )
    found = regularize(model, {"lstm1": GroupLasso(0.1)})
    assert [path for path, _ in found] == [
        "net/lstm1/lstm_cell/kernel",
        "net/lstm1/lstm_cell/recurrent_kernel",
    ]


def test_nested_models():
    inner = keras.Sequential(
        [keras.Input([4]), L.Dense(4, name="hidden")], name="inner"
    )
    inputs = keras.Input([4])
    model = keras.Model(inputs, inner(inner(inputs)))
    ((path, found),) = regularize(model, {"hidden": GroupLasso(0.1)})
    assert path.endswith("hidden/kernel")
    assert inner.layers[0].kernel.regularizer is found
    assert len(model.losses) == 1


def test_other_variables_by_their_whole_path():
    model = _model()
    ((path, found),) = regularize(
        model, {"bn/gamma": keras.regularizers.L1(1.0)}
    )
    assert path == "bn/gamma"
    assert model.get_layer("bn").gamma_regularizer is found
    np.testing.assert_allclose(model.losses[-1], 4.0)


def test_a_layer_of_ones_own():
    class Own(L.Layer):
        def build(self, shape):
            self.mixer = self.add_weight(shape=(shape[-1], 2), name="mixer")

        def call(self, x):
            return x @ self.mixer

    model = keras.Sequential([keras.Input([3]), Own(name="own")], name="net")
    ((path, found),) = regularize(model, {"own/mixer": GroupLasso(0.1)})
    assert path == "net/own/mixer"
    assert model.layers[0].mixer.regularizer is found


@pytest.mark.parametrize("pattern", ["conv3", "bn", "*/gamma", "CONV1"])
def test_a_pattern_that_matches_nothing(pattern):
    model = _model()
    with pytest.raises(ValueError) as error:
        regularize(model, {"*": GroupLasso(0.1), pattern: GroupLasso(0.2)})
    assert str(error.value) == (
        "Invalid value for argument patterns. Expected patterns that match the "
        "path or the layer of a kernel, one of ['conv1/kernel', "
        f"'conv2/kernel', 'depth/kernel', 'logits/kernel']. "
        f"Received: {pattern!r}"
    )
    assert model.get_layer("conv1").kernel.regularizer is None  # nothing set


def test_a_kernel_without_such_groups():
    model = _model()
    with pytest.raises(ValueError) as error:
        regularize(model, {"*": GroupLasso(0.1, "kernel2d")})
    assert str(error.value).startswith(
        "logits/kernel: Invalid value for argument groups. Expected one of"
    )
    assert model.get_layer("conv1").kernel.regularizer is None  # nothing set


def test_patterns_must_be_a_dict():
    with pytest.raises(TypeError) as error:
        regularize(_model(), ["*"])
    assert str(error.value) == (
        "Invalid type for argument patterns. Expected a dict from patterns to "
        "regularizers. Received: patterns=['*']"
    )


def test_values_must_be_regularizers():
    with pytest.raises(TypeError) as error:
        regularize(_model(), {"*": 0.1})
    assert str(error.value) == (
        "Invalid type for argument patterns. Expected a regularizer, a dict of "
        "arguments of GroupLasso, a list of these or None for '*'. "
        "Received: 0.1"
    )
