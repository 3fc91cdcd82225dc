"""Models for other runtimes: SavedModel, LiteRT (TFLite), ONNX."""

from __future__ import annotations

import contextlib
import pathlib
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.exporting import runtimes
from tf_ssl.exporting.same_padding import with_explicit_padding
from tf_ssl.graph.difference import relative_difference
from tf_ssl.graph.inputs import (
    check_model,
    input_structure,
    inputs_for,
    typed,
)
from tf_ssl.graph.walk import functional
from tf_ssl.sparse.layers.sparse_kernel_layer import SparseKernelLayer
from tf_ssl.structures.kernels import all_layers

# Name here -> name in keras.Model.export, ending of the path.
_FORMATS = {
    "savedmodel": ("tf_saved_model", ""),
    "tflite": ("litert", ".tflite"),
    "onnx": ("onnx", ".onnx"),
}
QUANTIZE = ("int8",)
# A difference of outputs that float32 does not explain.
_SUSPICIOUS = 1e-3


def export(
    model: keras.Model,
    path: str | pathlib.Path,
    format: str = "savedmodel",
    *,
    batch_size: int | None = None,
    quantize: str | None = None,
    representative=None,
) -> pathlib.Path:
    """Writes a model's inference for another runtime.

    Only operations of the runtime itself are used: a model that would need
    TensorFlow's inside LiteRT (Flex) is refused. Strided convolutions that
    LiteRT's default delegate gets wrong are written in another way (see
    `same_padding`). A SavedModel of a model that
    `tf_ssl.sparsify` made loads where `custom_ops` was imported before.

    Args:
        model: Built `keras.Model`.
        path: Of a folder, without an ending, for a SavedModel; else of a file
            that ends in `.tflite` or `.onnx`. What is there is replaced.
        format: "savedmodel", "tflite", or "onnx", which needs the package
            tf2onnx.
        batch_size: Examples a call; None: any number. "tflite" needs it for
            recurrent layers.
        quantize: "int8", with "tflite": weights (a scale for each filter) and
            activations are integers of 8 bits, inputs and outputs stay float.
            None: all is float.
        representative: What "int8" needs to find the ranges of activations:
            typical inputs, a few hundred examples, in the structure that the
            model takes, with a batch axis.

    Returns:
        The path.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, an argument is invalid, or it has sparse
            kernels and the format is not "savedmodel".
        ImportError: A package is missing; the message names it.
        RuntimeError: The format has no operations for the model.

    Reference: of "int8": Jacob et al., "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

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
    _check_quantize(format, quantize, representative)
    _check_sparse_kernels(model, format)
    if format == "tflite":
        model = with_explicit_padding(model)
    options = {"input_signature": _signature(model, batch_size)}
    if format == "tflite":
        ops = "TFLITE_BUILTINS" + ("_INT8" if quantize else "")
        builtins = [getattr(tf.lite.OpsSet, ops)]
        options["target_spec"] = {"supported_ops": builtins}
    if quantize:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        options["representative_dataset"] = _calibration(
            model, representative, batch_size or 1
        )
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

    Where LiteRT differs, but would not without its default delegate (XNNPACK),
    a warning says so: the file is right, and what runs it is not.

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
    path = pathlib.Path(path)
    exported = runtimes.load(path)
    sample = (
        inputs_for(model, exported.batch_size or 4)
        if sample is None
        else typed(model, sample)
    )
    structure = input_structure(model)
    names = [x.name for x in keras.tree.flatten(structure) if x is not None]
    expected = keras.tree.flatten(model(sample, training=False))
    difference = _difference(model, path, expected, exported.run(names, sample))
    if path.suffix == ".tflite" and difference > _SUSPICIOUS:
        plain = runtimes.load(path, delegates=False)
        other = _difference(model, path, expected, plain.run(names, sample))
        if other < difference / 100:
            warnings.warn(
                f"{path} differs by {difference:.1e} from {model.name} where "
                "LiteRT's default delegate (XNNPACK) runs it, and by "
                f"{other:.1e} without: the delegate computes something else. "
                "Run it with an interpreter without default delegates.",
                stacklevel=2,
            )
    return difference


def _difference(model, path, expected, received) -> float:
    if len(expected) != len(received):
        raise ValueError(
            f"Expected {len(expected)} outputs, as {model.name} has. Received: "
            f"{len(received)} from {path}"
        )
    return max(
        relative_difference(keras.ops.convert_to_numpy(a), b)
        for a, b in zip(expected, received, strict=True)
    )


def _check_quantize(format, quantize, representative):
    if quantize is None:
        if representative is not None:
            raise ValueError(
                "Invalid value for argument representative. Expected None "
                "without quantize='int8'. Received: inputs"
            )
        return
    checks.choice("quantize", quantize, QUANTIZE)
    if format != "tflite":
        raise ValueError(
            "Invalid value for argument quantize. Expected None for "
            f"format={format!r}; 'tflite' has integers. Received: "
            f"quantize={quantize!r}"
        )
    if representative is None:
        raise ValueError(
            "Invalid value for argument representative. Expected typical "
            "inputs with a batch axis, for quantize='int8' finds the ranges of "
            "activations from them. Received: representative=None"
        )


def _calibration(model, representative, batch_size):
    """What the converter runs to find ranges: `batch_size` examples a call."""
    arrays = keras.tree.flatten(typed(model, representative))
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1 or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(
            "Invalid value for argument representative. Expected finite arrays "
            "with the same number of examples. Received: shapes "
            f"{[array.shape for array in arrays]}"
        )
    inputs = keras.tree.flatten(input_structure(model))
    inputs = [x for x in inputs if x is not None]
    # The converter looks an input up by its name, or by what TensorFlow makes
    # of that: letters, digits and underscores.
    names = [x.name for x in inputs]
    names += [re.sub(r"\W", "_", name) for name in names]

    def calls():
        for start in range(0, len(arrays[0]), batch_size):
            rows = np.arange(start, start + batch_size) % len(arrays[0])
            parts = [array[rows] for array in arrays]
            yield dict(zip(names, 2 * parts, strict=True)) if names else parts

    return calls


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
    is_graph = functional(model) is not None
    structure = input_structure(model)
    if structure is None:
        if batch_size is not None:
            raise ValueError(
                "Invalid value for argument batch_size. Expected None, for "
                f"{model.name} is no Functional or Sequential model, and does "
                "not open on symbolic tensors. Received: "
                f"batch_size={batch_size}"
            )
        return None

    def spec(tensor):
        fixed = tensor.shape[0] if is_graph else None
        shape = (batch_size or fixed, *tensor.shape[1:])
        return keras.InputSpec(
            shape=shape, dtype=tensor.dtype, name=tensor.name
        )

    return [keras.tree.map_structure(spec, structure)]


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
