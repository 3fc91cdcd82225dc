"""Tests of tf_ssl/sparse/sparsify.py and tf_ssl/sparse/sparsify_report.py."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import custom_ops
from custom_ops import library
from tf_ssl import sparsify as sparsify_function
from tf_ssl.exporting.export import check_export, export
from tf_ssl.measure.compare import compare
from tf_ssl.measure.latency import Latency
from tf_ssl.measure.multiply_adds import multiply_adds
from tf_ssl.sparse.layers import SparseConv2D, SparseDense
from tf_ssl.sparse.sparsify import sparsify
from tf_ssl.sparse.sparsify_report import SparsifiedLayer, SparsifyReport

layers = keras.layers
MODULE = sys.modules[sparsify_function.__module__]

needs_ops = pytest.mark.skipif(
    library.ops() is None, reason="the C++ ops are not built"
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def network(density=0.05):
    """Layers of all kinds; a nested model; a shared layer."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((8, 8, 32)), layers.Conv2D(32, 3, name="inside")],
        name="inner",
    )
    images = keras.Input((10, 10, 16), name="images")
    x = layers.Conv2D(32, 3, activation="relu", name="conv")(images)
    x = inner(x)
    shared = layers.Dense(32, name="shared")
    x = shared(shared(x)) * 2.0
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(10, name="logits")(x)
    model = keras.Model(images, x)
    for kernel in model.variables:
        if kernel.name == "kernel" and "logits" not in kernel.path:
            value = kernel.numpy()
            drop = np.random.default_rng(1).random(value.shape) > density
            kernel.assign(np.where(drop, 0.0, value))
    return model


@pytest.fixture
def times(monkeypatch):
    """Milliseconds that a timing finds, in place of a timing."""
    found = {"dense": 2.0, "sparse": 1.0, "before": 5.0, "after": 4.0}

    def in_turn(functions, seconds):
        for function in functions.values():
            function()
        return {key: Latency(found[key], 0.0, 1) for key in functions}

    def measure_latency(models, *, batch_sizes, **_):
        return {
            key: {n: Latency(found[key], 0.0, 1) for n in batch_sizes}
            for key in models
        }

    monkeypatch.setattr(MODULE, "in_turn", in_turn)
    monkeypatch.setattr(MODULE, "measure_latency", measure_latency)
    return found


def kinds(model):
    return {
        layer.name: type(layer)
        for layer in model._flatten_layers()
        if hasattr(layer, "bias")
    }


@needs_ops
def test_layers_that_win_are_replaced(times):
    model = network()
    new = sparsify(model, batch_size=3)
    assert kinds(new) == {
        "conv": SparseConv2D,
        "inside": SparseConv2D,
        "shared": SparseDense,
        "depthwise": layers.DepthwiseConv2D,
        "logits": layers.Dense,
    }
    x = noise(3, 10, 10, 16)
    np.testing.assert_allclose(model(x), new(x), rtol=1e-4, atol=1e-5)
    report = new.sparsify_report
    assert report.milliseconds == (5.0, 4.0)
    assert report.batch_size == 3
    rows = {row.name: row for row in report.layers}
    assert list(rows) == [
        "conv",
        "inner/inside",
        "shared",
        "depthwise",
        "logits",
    ]
    assert rows["conv"].milliseconds == (2.0, 1.0)
    assert rows["conv"].reason == "measured faster"
    assert rows["depthwise"].reason == "a DepthwiseConv2D"
    assert rows["logits"].reason == "no zeros"
    counts = multiply_adds(new)
    assert counts["conv"] == 64 * np.count_nonzero(
        model.get_layer("conv").kernel
    )
    assert kinds(model)["conv"] is layers.Conv2D


@needs_ops
def test_layers_that_lose_stay(times):
    times["sparse"] = 1.99
    new = sparsify(network())
    assert SparseConv2D not in kinds(new).values()
    rows = {row.name: row for row in new.sparsify_report.layers}
    assert rows["conv"].reason == "measured not faster"
    assert new.sparsify_report.milliseconds is None
    assert SparseConv2D in kinds(sparsify(network(), least_speed_up=1)).values()


@needs_ops
def test_a_model_that_does_not_win_stays(times):
    times["after"] = 5.0
    model = network()
    new = sparsify(model)
    assert kinds(new) == kinds(model)
    rows = {row.name: row for row in new.sparsify_report.layers}
    assert rows["conv"].reason == "the whole model was not faster"
    assert not rows["conv"].is_sparse
    assert rows["logits"].reason == "no zeros"


@needs_ops
def test_by_the_plan(times):
    times["before"] = times["dense"] = float("nan")  # not asked for
    new = sparsify(network(), measure=False, batch_size=64)
    rows = {row.name: row for row in new.sparsify_report.layers}
    for name in ("conv", "inner/inside", "shared"):
        dense, sparse = rows[name].milliseconds
        assert rows[name].is_sparse == (1.05 * sparse <= dense)
        assert rows[name].reason.startswith("modelled ")
        assert rows[name].plan.density < 0.1
    assert rows["conv"].is_sparse
    assert new.sparsify_report.milliseconds is None


@needs_ops
def test_excluded_layers_and_bfloat16(times):
    new = sparsify(
        network(), exclude=("inn*", "logits"), values_dtype="bfloat16"
    )
    found = kinds(new)
    assert found["inside"] is layers.Conv2D
    assert found["conv"] is SparseConv2D
    assert new.get_layer("conv").values.dtype == "bfloat16"
    rows = {row.name: row for row in new.sparsify_report.layers}
    assert rows["inner/inside"].reason == rows["logits"].reason == "excluded"


def test_without_the_library_all_stay(monkeypatch):
    monkeypatch.setattr(library, "ops", lambda: None)
    monkeypatch.setattr(
        custom_ops,
        "status",
        lambda: {"implementation": "fallback", "reason": "not built"},
    )
    new = sparsify(network())
    rows = {row.name: row for row in new.sparsify_report.layers}
    assert rows["conv"].reason == "no sparse kernels (C++ ops: not built)"
    assert SparseConv2D not in kinds(new).values()


@needs_ops
def test_really_measured():
    """Whatever the times are, what they say is done."""
    model = network()
    new = sparsify(model, seconds=0.0)
    report = new.sparsify_report
    rows = {row.name: row for row in report.layers}
    if report.milliseconds and report.milliseconds[1] < report.milliseconds[0]:
        for name in ("conv", "shared"):
            dense, sparse = rows[name].milliseconds
            assert rows[name].is_sparse == (1.05 * sparse <= dense)
            is_sparse = "Sparse" in kinds(new)[name].__name__
            assert rows[name].is_sparse == is_sparse
    else:
        assert not any(row.is_sparse for row in report.layers)
    x = noise(2, 10, 10, 16)
    np.testing.assert_allclose(model(x), new(x), rtol=1e-4, atol=1e-5)


@needs_ops
def test_keras_file_savedmodel_and_comparison(times, tmp_path):
    model = network()
    new = sparsify(model)
    x = noise(2, 10, 10, 16)
    new.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), new(x))
    assert check_export(new, export(new, tmp_path / "saved")) < 1e-6
    found = compare(model, new, batch_sizes=(1,), seconds=0.0)
    assert [r.name for r in found.rows if r.name == "conv"] == ["conv"]
    assert found.totals.multiply_adds.ratio > 2


@needs_ops
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_other_formats_are_refused(times, tmp_path, format):
    new = sparsify(network())
    with pytest.raises(ValueError) as error:
        export(new, tmp_path / f"model.{format}", format)
    assert str(error.value) == (
        "Invalid value for argument format. Expected 'savedmodel' for a model "
        f"with sparse kernels (conv, inside, shared): {format} has no "
        "operations for them. Export the model that was given to "
        f"tf_ssl.sparsify. Received: format='{format}'"
    )


@needs_ops
@pytest.mark.slow
def test_keras_file_without_import_names_the_package(times, tmp_path):
    sparsify(network()).save(tmp_path / "model.keras")
    load = f"keras.saving.load_model({str(tmp_path / 'model.keras')!r})"
    runs = [
        subprocess.run(
            [sys.executable, "-c", f"{before}{load}"],
            capture_output=True,
            text=True,
        )
        for before in ("import keras\n", "import keras, tf_ssl\n")
    ]
    assert runs[0].returncode != 0
    assert "tf_ssl" in runs[0].stderr.splitlines()[-1] or (
        "'tf_ssl>SparseConv2D'" in runs[0].stderr
    )
    assert runs[1].returncode == 0


def test_report():
    plan = custom_ops.Plan("avx2", True, "columns", 0.125)
    report = SparsifyReport(
        [
            SparsifiedLayer("a", True, "measured faster", (4.0, 2.0), plan),
            SparsifiedLayer("b", False, "no zeros"),
        ],
        8,
        (10.0, 8.0),
        2e-7,
        1e-5,
    )
    assert str(report) == (
        "a: sparse: 87.5% zeros, columns; measured faster, 4.000 -> 2.000 ms "
        "(2.00x)\n"
        "b: dense: no zeros\n"
        "whole model, batch 8: 10.000 -> 8.000 ms (1.25x)\n"
        "difference from the model 2.0e-07, tolerance 1.0e-05"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"least_speed_up": 0.9},
            "Invalid value for argument least_speed_up. Expected a number >= "
            "1. Received: least_speed_up=0.9",
        ),
        (
            {"batch_size": 0},
            "Invalid value for argument batch_sizes. Expected a sequence of "
            "integers >= 1. Received: batch_sizes=(0,)",
        ),
        (
            {"values_dtype": "float16"},
            "Invalid value for argument values_dtype. Expected one of "
            "{'float32', 'bfloat16'}. Received: values_dtype='float16'",
        ),
        (
            {"exclude": "convs"},
            "Invalid value for argument exclude. Expected patterns that match "
            "layers: dense. Received: 'convs', which matches none",
        ),
    ],
)
def test_invalid_arguments(arguments, message):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])
    with pytest.raises(ValueError) as error:
        sparsify(model, **arguments)
    assert str(error.value) == message


def test_models_that_are_not_built_are_refused():
    with pytest.raises(ValueError, match="Expected a built model"):
        sparsify(keras.Sequential([layers.Dense(3)]))


class _Block(keras.Layer):
    """Two dense layers, the same names in each block."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(32, "relu", name="dense")
        self.second = layers.Dense(16, name="out")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 32))

    def call(self, inputs):
        return inputs + self.second(self.first(inputs))


def _blocks():
    """A model in which every kernel but those of the block `two` has zeros."""
    inputs = keras.Input((4, 16))
    x = _Block(name="one")(inputs)
    x = _Block(name="two")(x)
    model = keras.Model(inputs, layers.Dense(16, name="head")(x))
    for kernel in model.variables:
        if kernel.name == "kernel" and "two" not in kernel.path:
            zeros = np.random.default_rng(1).random(kernel.shape) > 0.1
            kernel.assign(np.where(zeros, 0.0, kernel))
    return model


@needs_ops
@pytest.mark.parametrize("values_dtype", ["float32", "bfloat16"])
def test_layers_in_composite_layers(times, values_dtype):
    model = _blocks()
    new = sparsify(model, exclude="head", values_dtype=values_dtype)
    found = {k: v for k, v in kinds(new).items() if "two" not in k}
    assert found["one_dense"] is found["one_out"] is SparseDense
    assert found["head"] is layers.Dense
    assert isinstance(new.get_layer("two"), _Block)
    report = new.sparsify_report
    assert [row.name for row in report.layers] == [
        *("one/dense", "one/out", "two/dense", "two/out", "head"),
    ]
    assert report.difference <= report.tolerance == 1e-5
    x = noise(3, 4, 16)
    limit = 1e-5 if values_dtype == "float32" else 2e-2
    assert np.abs(model(x) - new(x)).max() < limit * np.abs(model(x)).max()


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(16, name="dense")

    def call(self, inputs):
        return {"out": self.dense(inputs["a"])}


@needs_ops
def test_subclassed_models(times):
    model = _Subclass(name="net")
    model({"a": noise(2, 16)})
    kernel = model.dense.kernel
    kernel.assign(np.where(np.arange(16) % 4, 0.0, kernel))
    new = sparsify(model)
    assert kinds(new) == {"dense": SparseDense}
    x = {"a": noise(2, 16)}
    np.testing.assert_allclose(model(x)["out"], new(x)["out"], atol=1e-5)


@needs_ops
def test_what_differs_is_refused(times, monkeypatch):
    taken = SparseDense.assign_kernel

    def wrong(self, kernel, bias=None):
        taken(self, 1.001 * kernel, bias)

    monkeypatch.setattr(SparseDense, "assign_kernel", wrong)
    with pytest.raises(RuntimeError, match="of the sparsified model differs"):
        sparsify(_blocks())
