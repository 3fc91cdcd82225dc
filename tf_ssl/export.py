"""Models for other runtimes: SavedModel, LiteRT (TFLite), ONNX."""

from __future__ import annotations

import contextlib
import pathlib

import keras
import tensorflow as tf

from tf_ssl import checks, runtimes
from tf_ssl.difference import relative_difference
from tf_ssl.graph import functional
from tf_ssl.inputs import check_model, inputs_for, typed
from tf_ssl.kernels import all_layers
from tf_ssl.layers.sparse_kernel_layer import SparseKernelLayer

# Name here -> name in keras.Model.export, ending of the path.
_FORMATS = {
    "savedmodel": ("tf_saved_model", ""),
    "tflite": ("litert", ".tflite"),
    "onnx": ("onnx", ".onnx"),
}


def export(
    model: keras.Model,
    path: str | pathlib.Path,
    format: str = "savedmodel",
    *,
    batch_size: int | None = None,
) -> pathlib.Path:
    """Writes a model's inference for another runtime.

    Only operations of the runtime itself are used: a model that would need
    TensorFlow's inside LiteRT (Flex) is refused. A SavedModel of a model that
    `tf_ssl.sparsify` made loads where `custom_ops` was imported before.

    Args:
        model: Built `keras.Model`.
        path: Of a folder, without an ending, for a SavedModel; else of a file
            that ends in `.tflite` or `.onnx`. What is there is replaced.
        format: "savedmodel", "tflite", or "onnx", which needs the package
            tf2onnx.
        batch_size: Examples a call; None: any number. "tflite" needs it for
            recurrent layers.

    Returns:
        The path.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, an argument is invalid, or it has sparse
            kernels and the format is not "savedmodel".
        ImportError: A package is missing; the message names it.
        RuntimeError: The format has no operations for the model.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export(model, f"{folder}/dense.tflite", "tflite")
    ...     difference = check_export(model, path)
    >>> difference < 1e-5
    True
    """
    checks.choice("format", format, _FORMATS)
    check_model(model)
    path = pathlib.Path(path)
    name, ending = _FORMATS[format]
    if path.suffix != ending:
        raise ValueError(
            "Invalid value for argument path. Expected a path "
            f"{f'that ends in {ending}' if ending else 'without an ending'}, "
            f"for format={format!r}. Received: path={str(path)!r}"
        )
    _check_sparse_kernels(model, format)
    options = {"input_signature": _signature(model, batch_size)}
    if format == "tflite":
        builtins = [tf.lite.OpsSet.TFLITE_BUILTINS]
        options["target_spec"] = {"supported_ops": builtins}
    if format == "onnx":
        runtimes.needs("tf2onnx", "Export to ONNX")
        onnx = runtimes.needs("onnx", "Export to ONNX")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _inlined() if format == "onnx" else contextlib.nullcontext():
            model.export(path, format=name, verbose=False, **options)
        if format == "onnx":
            # tf2onnx writes what it could not convert as it is.
            onnx.checker.check_model(path)
    except Exception as error:
        if path.is_file():
            path.unlink()
        hint = (
            " Recurrent layers need export(..., batch_size=n)."
            if format == "tflite" and batch_size is None
            else ""
        )
        raise RuntimeError(
            f"The model {model.name} cannot be written as {format}.{hint} The "
            f"converter says: {_summary(error)}"
        ) from error
    return path


def check_export(
    model: keras.Model, path: str | pathlib.Path, sample=None
) -> float:
    """Runs an exported model in its own runtime and compares the outputs.

    Args:
        model: The model that was exported.
        path: What `export` returned.
        sample: Array, or arrays in the structure that the model takes, with a
            batch axis. None: noise, as many examples as the export takes, 4 if
            it takes any number.

    Returns:
        Largest difference of an output, max|a - b| / max|a|.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, there is no exported model, or it gives
            other outputs.
        ImportError: The runtime is missing; the message names it.
    """
    check_model(model)
    exported = runtimes.load(pathlib.Path(path))
    sample = (
        inputs_for(model, exported.batch_size or 4)
        if sample is None
        else typed(model, sample)
    )
    function = functional(model)
    names = [x.name for x in function.inputs] if function is not None else []
    expected = keras.tree.flatten(model(sample, training=False))
    received = exported.run(names, sample)
    if len(expected) != len(received):
        raise ValueError(
            f"Expected {len(expected)} outputs, as {model.name} has. Received: "
            f"{len(received)} from {path}"
        )
    return max(
        relative_difference(keras.ops.convert_to_numpy(a), b)
        for a, b in zip(expected, received, strict=True)
    )


def _check_sparse_kernels(model, format):
    """Raises ValueError for layers that only TensorFlow can run."""
    names = [
        layer.name
        for layer in all_layers(model)
        if isinstance(layer, SparseKernelLayer)
    ]
    if names and format != "savedmodel":
        raise ValueError(
            "Invalid value for argument format. Expected 'savedmodel' for a "
            f"model with sparse kernels ({', '.join(names)}): {format} has no "
            "operations for them. Export the model that was given to "
            f"tf_ssl.sparsify. Received: format={format!r}"
        )


def _signature(model, batch_size):
    """What `keras.Model.export` takes; None: as it was called."""
    if batch_size is not None:
        checks.integer("batch_size", batch_size, 1)
    function = functional(model)
    if function is None:
        if batch_size is not None:
            raise ValueError(
                "Invalid value for argument batch_size. Expected None, for "
                f"{model.name} is no Functional or Sequential model. Received: "
                f"batch_size={batch_size}"
            )
        return None

    def spec(tensor):
        fixed = tensor.shape[0] if batch_size is None else batch_size
        shape = (fixed, *tensor.shape[1:])
        return keras.InputSpec(
            shape=shape, dtype=tensor.dtype, name=tensor.name
        )

    if isinstance(model, keras.Sequential):
        return [spec(function.inputs[0])]
    return [keras.tree.map_structure(spec, function.input)]


@contextlib.contextmanager
def _inlined():
    """Compiled functions inside layers become a part of the graph.

    Keras compiles grouped convolutions with XLA, a call which tf2onnx cannot
    convert.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _summary(error) -> str:
    """The first words of a converter's error, which may fill pages."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
