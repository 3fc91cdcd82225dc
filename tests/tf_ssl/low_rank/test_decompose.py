"""Tests of tf_ssl/low_rank/decompose.py and tf_ssl/low_rank/factors.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.low_rank.decompose import decompose, kernel_ranks
from tf_ssl.shrinking.shrink import shrink

layers = keras.layers


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def difference(a, b, shape):
    x = noise(2, *shape)
    one, other = (keras.ops.convert_to_numpy(m(x)) for m in (a, b))
    return np.abs(one - other).max() / np.abs(one).max()


def network(**conv):
    """Convolutions and dense layers whose biases are not 0."""
    keras.utils.set_random_seed(0)
    bias = keras.initializers.RandomNormal(0.0, 1.0)
    return keras.Sequential(
        [
            keras.Input((12, 12, 5)),
            layers.Conv2D(
                8,
                (3, 2),
                activation="relu",
                bias_initializer=bias,
                name="conv",
                **conv,
            ),
            layers.Flatten(),
            layers.Dense(20, "tanh", bias_initializer=bias, name="hidden"),
            layers.Dense(4, bias_initializer=bias, name="logits"),
        ]
    )


@pytest.mark.parametrize("method", ["svd", "pca", "channel"])
@pytest.mark.parametrize(
    "conv",
    [
        {},
        {"strides": (2, 1)},
        {"padding": "same", "dilation_rate": (1, 2)},
        {"use_bias": False, "strides": 3, "padding": "same"},
    ],
)
def test_full_rank_is_the_model(method, conv):
    model = network(**conv)
    ranks = {
        "conv": 5 if method == "channel" else 8,
        "hidden": 20,
        "logits": 4,
    }
    new = decompose(model, ranks=ranks, method=method)
    assert [layer.name.split("flatten")[0] for layer in new.layers] == [
        *("conv_basis", "conv", ""),
        *("hidden_basis", "hidden", "logits_basis", "logits"),
    ]
    assert difference(model, new, (12, 12, 5)) < 1e-5
    windows = [layer.kernel_size for layer in new.layers[:2]]
    assert windows == (
        [(1, 1), (3, 2)] if method == "channel" else [(3, 2), (1, 1)]
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv1D(6, 3, padding="causal", name="conv"), (9, 4)),
        (layers.Conv3D(6, 2, name="conv"), (4, 5, 3, 2)),
        (layers.Dense(6, name="conv"), (3, 7)),
    ],
)
@pytest.mark.parametrize("method", ["svd", "channel"])
def test_other_ranks(layer, shape, method):
    model = keras.Sequential([keras.Input(shape), layer])
    full = kernel_ranks(model, 1.0)["conv"][1]
    rank = min(full, shape[-1] if method == "channel" else full)
    new = decompose(model, ranks={"conv": rank}, method=method)
    assert difference(model, new, shape) < 1e-5


@pytest.mark.parametrize("method", ["svd", "pca", "channel"])
def test_error_falls_with_energy(method):
    model = keras.Sequential(
        [keras.Input((12, 12, 8)), layers.Conv2D(16, 3, name="conv")]
    )
    images = noise(8, 12, 12, 8)
    errors = []
    for energy in (0.3, 0.5, 0.7, 0.9):
        new = decompose(model, energy=energy, method=method)
        assert new.decompose_report.layers[0].energy >= energy
        errors.append(float(((model(images) - new(images)).numpy() ** 2).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1] > 0


def test_energy_is_that_of_the_kernel():
    model = network()
    new = decompose(model, ranks={"conv": 3})
    kernel = model.get_layer("conv").kernel.numpy().reshape(-1, 8)
    product = new.layers[0].kernel.numpy().reshape(-1, 3) @ new.layers[
        1
    ].kernel.numpy().reshape(3, 8)
    lost = ((kernel - product) ** 2).sum() / (kernel**2).sum()
    (conv, hidden, logits) = new.decompose_report.layers
    np.testing.assert_allclose(conv.energy, 1 - lost, rtol=1e-5)
    assert (conv.rank, conv.full_rank) == (3, 8)
    assert conv.multiply_adds == (30 * 8, 3 * 38)
    assert hidden.reason == logits.reason == "no rank was given for it"
    basis = new.layers[0].kernel.numpy().reshape(-1, 3)
    other = decompose(model, ranks={"conv": 3}, method="pca")
    basis = other.layers[0].kernel.numpy().reshape(-1, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-6)


def test_layers_that_would_not_become_smaller_stay():
    model = network()
    new = decompose(model, energy=1.0)
    assert new.count_params() == model.count_params()
    assert {x.reason for x in new.decompose_report.layers} == {
        "its two factors would need no fewer multiply-adds"
    }


def test_budget():
    model = network()
    full = 10 * 11 * 30 * 8 + 880 * 20 + 80
    for budget in (0.2, 0.5, 0.8):
        report = decompose(model, budget=budget).decompose_report
        positions = {"conv": 110, "hidden": 1, "logits": 1}
        total = sum(
            positions[x.name] * x.multiply_adds[1] for x in report.layers
        )
        assert 0.5 * budget * full < total <= budget * full
    assert decompose(model, budget=1.0).decompose_report.layers[0].energy > 0.6


def test_low_rank_kernel_is_found():
    model = network()
    conv = model.get_layer("conv")
    conv.kernel.assign((noise(30, 2) @ noise(2, 8)).reshape(conv.kernel.shape))
    assert kernel_ranks(model, 0.9999)["conv"] == (2, 8)
    new = decompose(model, energy=0.9999, exclude=("hidden", "logits"))
    assert new.layers[0].filters == 2
    assert difference(model, new, (12, 12, 5)) < 1e-5
    assert ("hidden", "excluded") in new.decompose_report.skipped


def test_what_cannot_be_decomposed_is_named():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(1, 3, name="one")(x)
    model = keras.Model(inputs, x)
    report = decompose(model, energy=0.5).decompose_report
    assert report.layers == []
    assert report.skipped == [
        ("grouped", "a grouped convolution"),
        ("depthwise", "a DepthwiseConv2D"),
        ("one", "rank 1 already"),
    ]
    assert "grouped: left whole: a grouped convolution" in str(report)
    with pytest.raises(ValueError) as error:
        decompose(model, ranks={"grouped": 2})
    assert str(error.value) == (
        "Invalid value for argument ranks. Expected layers that can be "
        "decomposed. Received: 'grouped', a grouped convolution"
    )


def test_zero_kernel_and_shared_layer():
    shared = layers.Dense(6, name="shared")
    a, b = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([a, b], shared(shared(a)) + shared(b))
    new = decompose(model, ranks={"shared": 6})
    inputs = [noise(3, 6), noise(3, 6)]
    np.testing.assert_allclose(model(inputs), new(inputs), atol=1e-5)
    shared.kernel.assign(np.zeros((6, 6)))
    new = decompose(model, energy=0.95)
    assert new.get_layer("shared_basis").units == 1
    np.testing.assert_allclose(model(inputs), new(inputs), atol=1e-6)


def test_shrinks_and_saves(tmp_path):
    model = decompose(network(), ranks={"conv": 4, "hidden": 8})
    kernel = model.get_layer("conv_basis").kernel.numpy()
    kernel[..., 1] = 0
    model.get_layer("conv_basis").kernel.assign(kernel)
    small = shrink(model)
    assert small.get_layer("conv_basis").filters == 3
    small.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert difference(small, loaded, (12, 12, 5)) == 0


def test_measured_choice():
    model = network()
    report = decompose(
        model, energy=0.5, measure_batch=2, seconds=0.05
    ).decompose_report
    for layer in report.layers:
        before, after = layer.milliseconds
        assert (layer.reason is None) == (after < before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {},
            "Expected exactly one of the arguments energy, ranks and budget. "
            "Received: none",
        ),
        (
            {"energy": 0.5, "budget": 0.5},
            "Expected exactly one of the arguments energy, ranks and budget. "
            "Received: energy, budget",
        ),
        (
            {"energy": 0.0},
            "Invalid value for argument energy. Expected a number in (0, 1]. "
            "Received: energy=0.0",
        ),
        (
            {"budget": 1.5},
            "Invalid value for argument budget. Expected a number in (0, 1]. "
            "Received: budget=1.5",
        ),
        (
            {"budget": 0.001},
            "Invalid value for argument budget. Expected at least what rank 1 "
            "of every layer needs, 0.116. Received: budget=0.001",
        ),
        (
            {"ranks": {"conv": 9}},
            "Invalid value for argument ranks. Expected an integer in [1, 8] "
            "for the layer conv. Received: 'conv': 9",
        ),
        (
            {"ranks": {"conv9": 1}},
            "Invalid value for argument ranks. Expected patterns that match "
            "layers: conv, hidden, logits. Received: 'conv9', which matches "
            "none",
        ),
        (
            {"energy": 0.5, "exclude": "fc"},
            "Invalid value for argument exclude. Expected patterns that match "
            "layers: conv, hidden, logits. Received: 'fc', which matches none",
        ),
        (
            {"energy": 0.5, "method": "qr"},
            "Invalid value for argument method. Expected one of {'svd', "
            "'pca', 'channel'}. Received: method='qr'",
        ),
        (
            {"energy": 0.5, "measure_batch": 0},
            "Invalid value for argument measure_batch. Expected an integer >= "
            "1. Received: measure_batch=0",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        decompose(network(), **arguments)
    assert str(error.value) == message


def test_weights_that_are_not_finite():
    model = network()
    model.get_layer("conv").kernel.assign(np.full((3, 2, 5, 8), np.nan))
    with pytest.raises(ValueError) as error:
        decompose(model, energy=0.5)
    assert str(error.value) == (
        "Invalid value for argument model. Expected finite weights. Received: "
        "conv has NaN or infinite ones"
    )


def test_sizes_that_are_not_known_cannot_be_measured():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(8, 3, name="conv")]
    )
    with pytest.raises(ValueError) as error:
        decompose(model, energy=0.5, measure_batch=1)
    assert str(error.value) == (
        "Invalid value for argument measure_batch. Expected None where input "
        "sizes are not known: conv gets (None, None, None, 3)"
    )


class _Block(keras.Layer):
    """A residual block with a norm; its layers have the same names in each."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(12, "relu", name="dense")
        self.norm = layers.LayerNormalization(name="norm")
        self.second = layers.Dense(8, name="out")

    def build(self, shape):
        self.norm.build(shape)
        self.first.build(shape)
        self.second.build((*shape[:-1], 12))

    def call(self, inputs):
        return inputs + self.second(self.first(self.norm(inputs)))


def _blocks():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5, 8))
    x = _Block(name="one")(inputs)
    x = _Block(name="two")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_layers_in_composite_layers(tmp_path):
    model = _blocks()
    new = decompose(model, ranks={"one/*": 8, "head": 3})
    kernels = {x.name: x for x in new.layers if hasattr(x, "kernel")}
    assert list(kernels) == [
        *("one_dense_basis", "one_dense", "one_out_basis", "one_out"),
        *("head_basis", "head"),
    ]
    paths = [v.path for v in new.variables]
    assert len(set(paths)) == len(paths)
    # Nothing in it was decomposed.
    assert isinstance(new.get_layer("two"), _Block)
    assert difference(model, new, (5, 8)) < 1e-5
    report = new.decompose_report
    assert [(x.name, x.rank) for x in report.layers] == [
        *(("one/dense", 8), ("one/out", 8)),
        *(("two/dense", 8), ("two/out", 8), ("head", 3)),
    ]
    assert report.difference < report.tolerance == 1e-5
    assert str(report).endswith(
        f"kernels {report.difference:.1e}, tolerance 1.0e-05"
    )
    named = decompose(model, ranks={"dense": 2}).decompose_report
    assert [x.rank for x in named.layers if x.reason is None] == [2, 2]
    assert set(kernel_ranks(model, 0.5)) == {x.name for x in report.layers}
    new.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"_Block": _Block}
    )
    assert difference(new, loaded, (5, 8)) == 0


def test_budget_counts_layers_in_composite_layers():
    model = _blocks()
    report = decompose(model, budget=0.6).decompose_report
    positions = dict.fromkeys([x.name for x in report.layers], 5)
    total = sum(positions[x.name] * x.multiply_adds[1] for x in report.layers)
    full = sum(positions[x.name] * x.multiply_adds[0] for x in report.layers)
    assert 0.4 * full < total <= 0.6 * full


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, "relu", name="hidden")
        self.out = layers.Dense(4, name="out")

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def test_subclassed_models():
    model = _Subclass()
    model(noise(2, 8))
    new = decompose(model, ranks={"hidden": 8})
    assert difference(model, new, (8,)) < 1e-5


class _Opaque(_Block):
    def call(self, inputs):
        return tf.identity(super().call(inputs))


def test_what_does_not_open_is_named():
    inputs = keras.Input((5, 8))
    x = _Opaque(name="block")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    report = decompose(model, energy=1.0).decompose_report
    ((name, reason),) = report.skipped
    assert name == "block" and reason.startswith("does not open: ")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_short_types_round_more(policy):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(32, "relu", dtype=policy, name="a"),
            layers.Dense(4, dtype="float32", name="b"),
        ]
    )
    report = decompose(model, ranks={"a": 32}).decompose_report
    assert 1e-6 < report.difference <= report.tolerance
    assert report.tolerance >= 5e-3


def test_what_differs_is_refused():
    model = network()
    with pytest.raises(RuntimeError) as error:
        decompose(model, ranks={"conv": 8}, tolerance=1e-12)
    assert "of the decomposed model differs from that of" in str(error.value)
    assert str(error.value).endswith("more than tolerance=1.0e-12.")


def test_nan_asks_for_a_sample():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Lambda(lambda x: keras.ops.log(x)),
            layers.Dense(6, name="dense"),
        ]
    )
    with pytest.raises(ValueError, match="pass sample=, an example"):
        decompose(model, energy=1.0)
    new = decompose(model, ranks={"dense": 6}, sample=np.ones((2, 6)))
    assert new.decompose_report.difference < 1e-5


def test_quantized_layers_and_lora_stay_whole():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, name="a"),
            layers.Dense(8, name="b"),
        ]
    )
    model.get_layer("a").quantize("int8")
    model.get_layer("b").enable_lora(2)
    report = decompose(model, energy=0.5).decompose_report
    assert report.layers == []
    assert report.skipped == [
        ("a", "quantized, or with LoRA factors"),
        ("b", "quantized, or with LoRA factors"),
    ]
