"""Exported models run by their runtimes, against Keras."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_ssl
from tf_ssl.exporting import runtimes
from tf_ssl.exporting.export import check_export, export

layers = keras.layers

_PATHS = {
    "savedmodel": "model",
    "tflite": "model.tflite",
    "onnx": "model.onnx",
}


def _convnet():
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 4), name="images")
    x = layers.Conv2D(6, 3, padding="same", groups=2)(images)
    x = layers.BatchNormalization(beta_initializer="normal")(x)
    x = layers.MaxPooling2D(2)(layers.ReLU()(x))
    x = layers.Rescaling(1.0, offset=0.5)(x)
    x = layers.Dense(3)(layers.Flatten()(x))
    return keras.Model(images, x, name="convnet")


def _two_inputs(as_dict):
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="z"), keras.Input((4,), name="a-b")
    x = layers.Subtract()([first, 2.0 * second])
    outputs = [layers.Dense(3)(x), layers.Dense(3)(first)]
    if not as_dict:
        # output_10 is not the one after output_1.
        outputs += [(i + 1.0) * first for i in range(9)]
        return keras.Model([first, second], outputs, name="two")
    return keras.Model(
        {"z": first, "a-b": second}, {"y": outputs[0], "b": outputs[1]}
    )


def _recurrent():
    keras.utils.set_random_seed(0)
    words = keras.Input((3,), dtype="int32", name="words")
    x = layers.Embedding(11, 4)(words)
    x = keras.ops.flip(layers.LSTM(5, return_sequences=True)(x), axis=1)
    return keras.Model(words, x, name="recurrent")


def _needs_packages(format):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("format", _PATHS)
@pytest.mark.parametrize(
    "build, batch_size",
    [(_convnet, None), (lambda: _two_inputs(False), None), (_recurrent, 3)],
    ids=["convnet", "two inputs", "recurrent"],
)
def test_agrees(tmp_path, format, build, batch_size):
    _needs_packages(format)
    model = build()
    target = tmp_path / "folder" / _PATHS[format]
    path = export(model, target, format, batch_size=batch_size)
    assert path == target and path.exists()
    assert check_export(model, path) < 1e-5
    assert runtimes.load(path).batch_size == batch_size


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_structures_of_dicts(tmp_path, format):
    _needs_packages(format)
    model = _two_inputs(True)
    path = export(model, tmp_path / _PATHS[format], format)
    assert check_export(model, path) < 1e-5


def test_sequential_and_float64_samples(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    path = export(model, tmp_path / "net.tflite", "tflite")
    sample = np.random.default_rng(0).standard_normal((5, 8))
    assert check_export(model, path, sample) < 1e-5


@pytest.mark.parametrize("format", _PATHS)
def test_other_weights_are_seen(tmp_path, format):
    _needs_packages(format)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    path = export(model, tmp_path / _PATHS[format], format)
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + 0.5])
    assert check_export(model, path) > 0.01


def test_recurrent_layers_in_tflite_need_a_batch_size(tmp_path):
    path = tmp_path / "net.tflite"
    model = keras.Sequential([keras.Input((2, 3)), layers.SimpleRNN(2)])
    with pytest.raises(RuntimeError) as error:
        export(model, path, "tflite")
    assert str(error.value).startswith(
        f"The model {model.name} cannot be written as tflite. Recurrent layers "
        "need export(..., batch_size=n). The converter says: ConverterError: "
    )
    assert not path.exists()


def test_what_onnx_has_not_is_refused(tmp_path):
    _needs_packages("onnx")

    class Erfc(keras.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.math.ndtri(tf.sigmoid(x))

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Erfc()(inputs), name="net")
    path = tmp_path / "net.onnx"
    with pytest.raises(RuntimeError) as error:
        export(model, path, "onnx")
    assert str(error.value).startswith(
        "The model net cannot be written as onnx. The converter says: "
    )
    assert not path.exists()


@pytest.mark.parametrize("package", ["tf2onnx", "onnxruntime"])
def test_missing_packages(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    with pytest.raises(ImportError) as error:
        if package == "tf2onnx":
            export(model, path, "onnx")
        else:
            check_export(model, path)
    what = "Export to ONNX" if package == "tf2onnx" else "Running ONNX"
    assert str(error.value) == (
        f"{what} needs {package}. Install it: pip install {package}. (import "
        f"of {package} halted; None in sys.modules)"
    )


@pytest.mark.parametrize(
    "format, path, expected",
    [
        ("savedmodel", "net.keras", "without an ending"),
        ("tflite", "net", "that ends in .tflite"),
        ("onnx", "net.tflite", "that ends in .onnx"),
    ],
)
def test_refuses_paths(format, path, expected):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises(ValueError) as error:
        export(model, path, format)
    assert str(error.value) == (
        f"Invalid value for argument path. Expected a path {expected}, for "
        f"format={format!r}. Received: path={path!r}"
    )


def test_refuses_arguments(tmp_path):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises(ValueError) as error:
        export(model, "net", "litert")
    assert str(error.value) == (
        "Invalid value for argument format. Expected one of {'savedmodel', "
        "'tflite', 'onnx'}. Received: format='litert'"
    )
    with pytest.raises(ValueError) as error:
        export(model, "net", batch_size=0)
    assert str(error.value) == (
        "Invalid value for argument batch_size. Expected an integer >= 1. "
        "Received: batch_size=0"
    )
    nothing = str(tmp_path / "nothing")
    with pytest.raises(ValueError) as error:
        check_export(model, nothing)
    assert str(error.value) == (
        "Invalid value for argument path. Expected a folder of a SavedModel, a "
        f".tflite or an .onnx file. Received: path={nothing!r}"
    )


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_models(tmp_path):
    model = _Subclass(name="net")
    sample = np.ones((2, 3), np.float32)
    model(sample)
    path = export(model, tmp_path / "net.tflite", "tflite")
    assert check_export(model, path, sample) < 1e-5


class _Opaque(_Subclass):
    def call(self, inputs):
        return self.dense(tf.reverse(inputs, axis=[-1]))


def test_a_batch_size_needs_an_input_that_is_known(tmp_path):
    model = _Opaque(name="net")
    model(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError) as error:
        export(model, tmp_path / "net", batch_size=2)
    assert str(error.value) == (
        "Invalid value for argument batch_size. Expected None, for net is no "
        "Functional or Sequential model, and does not open on symbolic "
        "tensors. Received: batch_size=2"
    )
    path = export(model, tmp_path / "net")
    sample = np.ones((2, 3), np.float32)
    assert check_export(model, path, sample) < 1e-5


def _integers(path):
    """Names of the types of a file's tensors."""
    details = tf.lite.Interpreter(str(path)).get_tensor_details()
    return {np.dtype(detail["dtype"]).name for detail in details}


@pytest.mark.parametrize("batch_size", [None, 2])
def test_int8(tmp_path, batch_size):
    model = _convnet()
    images = np.random.default_rng(0).standard_normal((64, 12, 12, 4))
    path = export(
        model,
        tmp_path / "net.tflite",
        "tflite",
        batch_size=batch_size,
        quantize="int8",
        representative=images,
    )
    assert "int8" in _integers(path)
    assert 1e-4 < check_export(model, path, images[: batch_size or 4]) < 0.1
    # Ranges are those of the examples: of smaller ones other outputs clip.
    export(
        model,
        tmp_path / "small.tflite",
        "tflite",
        batch_size=batch_size,
        quantize="int8",
        representative=1e-2 * images,
    )
    sample = images[: batch_size or 4]
    assert check_export(model, tmp_path / "small.tflite", sample) > 0.3


def test_int8_takes_a_quarter_of_the_bytes(tmp_path):
    model = keras.Sequential([keras.Input((900,)), layers.Dense(64)])
    export(model, tmp_path / "float.tflite", "tflite")
    export(
        model,
        tmp_path / "int8.tflite",
        "tflite",
        quantize="int8",
        representative=np.ones((4, 900)),
    )
    sizes = [
        (tmp_path / f"{name}.tflite").stat().st_size
        for name in ("int8", "float")
    ]
    assert sizes[0] < 0.3 * sizes[1]


def test_int8_of_several_inputs(tmp_path):
    model = _two_inputs(False)
    random = np.random.default_rng(0)
    sample = [random.standard_normal((32, 4)), 3 * random.random((32, 4))]
    path = export(
        model,
        tmp_path / "net.tflite",
        "tflite",
        quantize="int8",
        representative=sample,
    )
    assert check_export(model, path, sample) < 0.1


def test_int8_of_subclassed_models(tmp_path):
    model = _Subclass(name="net")
    sample = np.linspace(-1, 1, 24).reshape(8, 3).astype(np.float32)
    model(sample)
    path = export(
        model,
        tmp_path / "net.tflite",
        "tflite",
        quantize="int8",
        representative=sample,
    )
    assert "int8" in _integers(path)
    assert check_export(model, path, sample[:1]) < 0.1


@pytest.mark.parametrize(
    "format, options, message",
    [
        (
            "tflite",
            {"quantize": "int4"},
            "Invalid value for argument quantize. Expected one of {'int8'}. "
            "Received: quantize='int4'",
        ),
        (
            "onnx",
            {"quantize": "int8"},
            "Invalid value for argument quantize. Expected None for "
            "format='onnx'; 'tflite' has integers. Received: quantize='int8'",
        ),
        (
            "tflite",
            {"quantize": "int8"},
            "Invalid value for argument representative. Expected typical "
            "inputs with a batch axis, for quantize='int8' finds the ranges of "
            "activations from them. Received: representative=None",
        ),
        (
            "tflite",
            {"representative": np.ones((2, 8))},
            "Invalid value for argument representative. Expected None without "
            "quantize='int8'. Received: inputs",
        ),
        (
            "tflite",
            {"quantize": "int8", "representative": np.full((2, 8), np.nan)},
            "Invalid value for argument representative. Expected finite arrays "
            "with the same number of examples. Received: shapes [(2, 8)]",
        ),
    ],
)
def test_refuses_quantization(tmp_path, format, options, message):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    path = tmp_path / _PATHS[format]
    with pytest.raises(ValueError) as error:
        export(model, path, format, **options)
    assert str(error.value) == message
    assert not path.exists()


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


class _Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = _Block(name="block")
        self.head = layers.Dense(2)

    def call(self, inputs):
        x = self.block(inputs["first"]) + inputs["second"]
        return {"y": self.head(x), "x": x}


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("format", ["savedmodel", "tflite"])
def test_subclassed_models_and_what_they_shrink_to(
    format, batch_size, tmp_path
):
    model = _Net(name="net")
    model({"first": np.ones((2, 4)), "second": np.ones((2, 4))})
    small = tf_ssl.shrink(model)
    for i, each in enumerate((model, small)):
        ending = ".tflite" if format == "tflite" else ""
        path = tmp_path / f"{i}{ending}"
        path = tf_ssl.export(each, path, format, batch_size=batch_size)
        assert tf_ssl.check_export(each, path) < 1e-5
