"""Exported models, run by their own runtimes."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import re
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """An exported model.

    Attributes:
        batch_size: Examples that it takes in a call; None: any number.
        run: Function from the names of the inputs, in the order in which they
            are flat, and the inputs in their structure, to the flat list of
            outputs.
    """

    batch_size: int | None
    run: Callable


def needs(package: str, what: str):
    """The module of an optional package.

    Raises:
        ImportError: It is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {package}. Install it: pip install {package}. "
            f"({error})"
        ) from error


def load(path: pathlib.Path, delegates: bool = True) -> Exported:
    """An exported model, to be run.

    Args:
        path: Folder of a SavedModel, `.tflite` or `.onnx` file.
        delegates: Whether LiteRT takes its default delegates.

    Raises:
        ValueError: There is no exported model.
        ImportError: The runtime is missing.
    """
    if path.suffix == ".tflite" and path.is_file():
        return _load_tflite(path, delegates)
    if path.suffix == ".onnx" and path.is_file():
        return _load_onnx(path)
    if (path / "saved_model.pb").is_file():
        return _load_savedmodel(path)
    raise ValueError(
        "Invalid value for argument path. Expected a folder of a SavedModel, a "
        f".tflite or an .onnx file. Received: path={str(path)!r}"
    )


def _load_savedmodel(path):
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serve"].structured_input_signature[1]
    shape = next(iter(signature.values())).shape

    def run(names, inputs):
        tensors = keras.tree.map_structure(tf.convert_to_tensor, inputs)
        return [x.numpy() for x in keras.tree.flatten(loaded.serve(tensors))]

    return Exported(shape[0], run)


def _load_tflite(path, delegates):
    with warnings.catch_warnings():
        # It announces its own end since TensorFlow 2.18.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is")
        kinds = tf.lite.experimental.OpResolverType
        interpreter = tf.lite.Interpreter(
            str(path),
            experimental_op_resolver_type=kinds.AUTO
            if delegates
            else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    runner = interpreter.get_signature_runner()
    shapes = {
        name: detail["shape_signature"]
        for name, detail in runner.get_input_details().items()
    }
    size = int(next(iter(shapes.values()))[0])

    def run(names, inputs):
        outputs = runner(**_named(shapes, names, inputs))
        # output_2 stands before output_10; keys of a dict are in their order.
        order = sorted(outputs, key=lambda key: (_number(key), key))
        return [outputs[name] for name in order]

    return Exported(None if size < 0 else size, run)


def _load_onnx(path):
    session = needs("onnxruntime", "Running ONNX").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    shapes = {x.name: x.shape for x in session.get_inputs()}
    size = next(iter(shapes.values()))[0]

    def run(names, inputs):
        return session.run(None, _named(shapes, names, inputs))

    return Exported(size if isinstance(size, int) else None, run)


def _named(expected, names, inputs) -> dict[str, np.ndarray]:
    """The inputs by the names that the exported model has for them."""
    arrays = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    if len(expected) == len(arrays) == 1:
        return {next(iter(expected)): arrays[0]}
    # TensorFlow's names of arguments are letters, digits and underscores.
    given = {
        re.sub(r"\W", "_", name): array
        for name, array in zip(names, arrays, strict=True)
    }
    return {name: given[re.sub(r"\W", "_", name)] for name in expected}


def _number(name: str) -> int:
    found = re.fullmatch(r"output_(\d+)", name)
    return int(found[1]) if found else 0
