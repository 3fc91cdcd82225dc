"""Models in files that leave their zeros out."""

from __future__ import annotations

import json
import pathlib
import zipfile

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.graph.walk import functional
from tf_ssl.sparse.layers.sparse_kernel_layer import SparseKernelLayer
from tf_ssl.sparse.storage import formats
from tf_ssl.structures.kernels import all_layers

_VERSION = 1
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def save_sparse(
    model: keras.Model, path: str | pathlib.Path, *, compress: bool = False
) -> pathlib.Path:
    """Writes a model with each kernel in the format of the fewest bytes.

    Formats are dense, compressed rows (CSR), and compressed rows of blocks. A
    sparsified model's values and positions are one kernel. Optimizer and
    compilation are not saved.

    Args:
        model: Built Functional or Sequential model.
        path: Of the file, ending in `.npz`; what is there is replaced.
        compress: Whether zlib compresses the arrays as well.

    Returns:
        The path.

    Raises:
        ValueError: The model is not built, or is a subclass with Python code;
            the path has another ending.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_sparse(model, f"{folder}/model.npz")
    ...     load_sparse(path).count_params()
    36
    """
    path = pathlib.Path(path)
    if functional(model) is None:
        raise ValueError(
            "Invalid value for argument model. Expected a built Functional or "
            f"Sequential model. Received: {model!r}. Of a subclass of "
            "keras.Model only its own code knows how to make it again: save "
            "it with model.save, or what tf_ssl.shrink, decompose or sparsify "
            "make of it, which is Functional."
        )
    if path.suffix != ".npz":
        raise ValueError(
            "Invalid value for argument path. Expected a path that ends in "
            f".npz. Received: path={str(path)!r}"
        )
    kernels = _sparse_kernels(model)
    index, arrays = [], {}
    for number, variable in enumerate(model.variables):
        layer, role = kernels.get(id(variable), (None, None))
        if role == "positions":
            index.append({"format": "positions", "path": variable.path})
            continue
        value = keras.ops.convert_to_numpy(variable)
        mask = None
        if role == "values":
            value, mask = _spread(layer, value)
        entry, own = _encoded(value, mask)
        index.append({**entry, "path": variable.path})
        arrays |= {f"{number}/{name}": array for name, array in own.items()}
    header = {
        "version": _VERSION,
        "model": keras.saving.serialize_keras_object(model),
        "variables": index,
    }
    text = json.dumps(header).encode()
    write = np.savez_compressed if compress else np.savez
    with open(path, "wb") as file:
        write(file, header=np.frombuffer(text, np.uint8), **arrays)
    return path


def load_sparse(
    path: str | pathlib.Path, custom_objects: dict | None = None
) -> keras.Model:
    """The model of a file of `save_sparse`, the same to the bit.

    Args:
        path: Of the file.
        custom_objects: As in `keras.saving.load_model`.

    Raises:
        ValueError: It is no such file, or one of a later version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(arrays.pop("header").tobytes())
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            "Invalid value for argument path. Expected a file of "
            f"tf_ssl.storage.save_sparse. Received: path={str(path)!r}"
        ) from error
    if header["version"] > _VERSION:
        raise ValueError(
            f"Invalid value for argument path. Expected a file of version "
            f"{_VERSION} or before. Received: path={str(path)!r} of version "
            f"{header['version']}"
        )
    model = keras.saving.deserialize_keras_object(
        header["model"], custom_objects=custom_objects
    )
    kernels = _sparse_kernels(model)
    entries = zip(header["variables"], model.variables, strict=True)
    for number, (entry, variable) in enumerate(entries):
        if entry["format"] == "positions":
            continue
        prefix = f"{number}/"
        own = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        value, mask = _decoded(entry, own)
        layer, role = kernels.get(id(variable), (None, None))
        if role == "values":
            positions = np.flatnonzero(mask)
            layer.positions.assign(positions)
            value = value.reshape(-1)[positions]
        variable.assign(value)
    return model


def _sparse_kernels(model) -> dict:
    """The id of a variable -> (layer, "values" or "positions")."""
    return {
        id(getattr(layer, role)): (layer, role)
        for layer in all_layers(model)
        if isinstance(layer, SparseKernelLayer)
        for role in ("values", "positions")
    }


def _spread(layer, values):
    """The kernel of a sparse layer, and where its positions are."""
    kernel = np.zeros(layer.kernel_shape, values.dtype)
    mask = np.zeros(layer.kernel_shape, bool)
    positions = keras.ops.convert_to_numpy(layer.positions)
    kernel.reshape(-1)[positions] = values
    mask.reshape(-1)[positions] = True
    return kernel, mask


def _encoded(value, mask=None):
    """Entry of the index, and arrays.

    Floats are kept by their bits: -0 is none of the zeros that are left out,
    and NumPy can save bfloat16. A mask says what is not left out.
    """
    entry = {"shape": list(value.shape), "dtype": value.dtype.name}
    if value.ndim < 2 or value.dtype.name not in _FLOATS or not value.size:
        return {**entry, "format": "dense"}, {"values": _bits(value)}
    matrix = formats.to_matrix(_bits(value))
    blocks = ((1, 1), *formats.BLOCKS)
    if mask is not None and (matrix[formats.to_matrix(mask)] == 0).any():
        # A weight that is 0 by itself: of elements alone places are known.
        block, arrays = (
            (1, 1),
            formats.encode(matrix, mask=formats.to_matrix(mask)),
        )
    else:
        block, arrays = formats.smallest(matrix, blocks)
        if formats.num_bytes(arrays) >= value.nbytes:
            return {**entry, "format": "dense"}, {"values": _bits(value)}
    return {**entry, "format": "block", "block": list(block)}, arrays


def _decoded(entry, arrays):
    """The value, and where it is not left out."""
    shape, bits = tuple(entry["shape"]), arrays["values"]
    mask = bits != 0
    if entry["format"] == "block":
        block = tuple(entry["block"])
        size = shape[-1], int(np.prod(shape[:-1]))
        bits = formats.decode(arrays, size, block)
        mask = bits != 0
        if block == (1, 1):
            ones = np.ones(len(arrays["values"]), bool)
            mask = formats.decode({**arrays, "values": ones}, size, block)
        bits, mask = (formats.from_matrix(m, shape) for m in (bits, mask))
    if entry["dtype"] in _FLOATS:
        bits = bits.view(tf.as_dtype(entry["dtype"]).as_numpy_dtype)
    return bits, mask


def _bits(value):
    if value.dtype.name not in _FLOATS:
        return value
    return np.ascontiguousarray(value).view(f"uint{8 * value.itemsize}")
