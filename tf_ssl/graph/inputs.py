"""Inputs for a model when the user gives none, or another number of them."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.number_limits import limits_of
from tf_ssl.graph.walk import build_graph, functional


def check_model(model) -> None:
    """Raises unless the argument is a built Keras model.

    Raises:
        TypeError: It is no `keras.Model`.
        ValueError: It has no weights yet.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument model. Expected a keras.Model. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "Invalid value for argument model. Expected a built model. "
            f"Received: {model.name}, which is not built. Give it an Input, or "
            "call it once on data."
        )


def input_structure(model):
    """KerasTensors in the structure that a model takes; None: not known.

    That of a subclassed model shows when it is called on symbolic tensors, of
    the shapes that it was built for; they have the names of their places in it.
    """
    function = functional(model)
    if isinstance(model, keras.Sequential):
        return None if function is None else function.inputs[0]
    if function is not None:
        return function.input
    try:
        structure = build_graph(model).inputs_structure
    except ValueError:  # It does not open.
        return None
    named = [
        x
        if x is None
        else keras.KerasTensor(x.shape, x.dtype, name=_name_at(path))
        for path, x in keras.tree.flatten_with_path(structure)
    ]
    return keras.tree.pack_sequence_as(structure, named)


def _name_at(path) -> str:
    """`"images"` for a key, `"input_1"` for a position; "input" alone."""
    words = [str(part) for part in path]
    if not words or words[0].isdigit():
        words = ["input", *words]
    return "_".join(words)


def static_batch(model) -> int | None:
    """The batch size that a model was built for; None: any."""
    function = functional(model)
    return function.inputs[0].shape[0] if function is not None else None


def open_size(model, inputs) -> int | None:
    """The size in these inputs of what a model leaves open.

    None: it leaves nothing open but the batch, or there are several sizes.
    """
    structure = input_structure(model)
    tensors = [] if structure is None else keras.tree.flatten(structure)
    sizes = {
        given
        for tensor, array in zip(
            tensors, keras.tree.flatten(inputs), strict=False
        )
        if tensor is not None and array is not None
        for size, given in zip(tensor.shape[1:], array.shape[1:], strict=False)
        if size is None
    }
    return int(sizes.pop()) if len(sizes) == 1 else None


def inputs_for(
    model, batch_size: int = 1, sample=None, seed: int = 0, unknown=None
):
    """Inputs for one call of a model.

    Args:
        model: Built `keras.Model`.
        batch_size: Number of examples.
        sample: Array, or arrays in the structure that the model takes, with a
            batch axis; its examples are repeated or cut to `batch_size`. None:
            normal noise; integers that the embeddings that read them, wherever
            they are, have rows for; 0 and 1 for masks; random truth values.
        seed: Of the noise.
        unknown: Size of axes whose size the model leaves open; None: an error.

    Returns:
        NumPy arrays in the structure that the model takes.

    Raises:
        ValueError: Without a sample, an input's size is not known, or it holds
            strings; or the model was built for another batch size.
    """
    fixed = static_batch(model)
    if fixed not in (None, batch_size):
        raise ValueError(
            f"Invalid value for argument batch_size. Expected {fixed}, the "
            f"batch size that {model.name} was built for. Received: "
            f"batch_size={batch_size}"
        )
    if sample is not None:
        return keras.tree.map_structure(
            lambda x: None if x is None else x[np.arange(batch_size) % len(x)],
            typed(model, sample),
        )
    structure = input_structure(model)
    if structure is None:
        raise ValueError(
            "Invalid value for argument sample. Expected an example of the "
            f"model's input, for {model.name} is no Functional or Sequential "
            "model, and does not open on symbolic tensors. Received: "
            "sample=None"
        )
    tensors = [x for x in keras.tree.flatten(structure) if x is not None]
    limits: dict = {}
    if any("int" in str(x.dtype) for x in tensors):
        found = limits_of(model, [x.name for x in tensors])
        limits = {id(x): n for x, n in zip(tensors, found, strict=True)}
    random = np.random.default_rng(seed)

    def draw(x):
        if x is None:
            return None
        return _draw(x, batch_size, limits.get(id(x)), random, unknown)

    return keras.tree.map_structure(draw, structure)


def typed(model, sample):
    """A sample as arrays of the types that a model takes.

    None stays in the place of an optional input.

    Raises:
        ValueError: It holds another number of arrays than the model takes, or
            no example.
    """
    arrays = [
        x if x is None else np.asarray(x) for x in keras.tree.flatten(sample)
    ]
    structure = input_structure(model)
    tensors = None if structure is None else keras.tree.flatten(structure)
    if tensors is not None and len(arrays) != len(tensors):
        raise ValueError(
            f"Invalid value for argument sample. Expected "
            f"{len(tensors)} arrays, for the inputs "
            f"{[x.name for x in tensors]} of {model.name}. Received: "
            f"{len(arrays)} arrays"
        )
    given = [x for x in arrays if x is not None]
    if any(x.ndim == 0 or len(x) == 0 for x in given):
        raise ValueError(
            "Invalid value for argument sample. Expected arrays with a batch "
            "axis and at least one example. Received: shapes "
            f"{[x.shape for x in given]}"
        )
    if tensors is not None:
        arrays = [
            # bfloat16 and string are no types of NumPy.
            x
            if x is None
            or tensor is None
            or tensor.dtype in ("bfloat16", "string")
            else x.astype(tensor.dtype)
            for x, tensor in zip(arrays, tensors, strict=True)
        ]
    return keras.tree.pack_sequence_as(sample, arrays)


def _draw(tensor, batch_size, limit, random, unknown):
    shape = (
        batch_size,
        *(unknown if n is None else n for n in tensor.shape[1:]),
    )
    if None in shape or tensor.dtype == "string":
        raise ValueError(
            "Invalid value for argument sample. Expected an example of the "
            f"model's input, for input {tensor.name} has the shape "
            f"{tuple(tensor.shape)} and the type {tensor.dtype}. Received: "
            "sample=None"
        )
    dtype = str(tensor.dtype)
    if dtype == "bool" or "int" in dtype:
        high = 2 if dtype == "bool" else limit
        is_mask = tensor.name.endswith("mask") and high == 2
        values = random.integers(0, high, shape).astype(dtype)
        if is_mask and values.ndim > 1:
            values[..., 0] = 1  # no row is masked as a whole
        return values
    values = random.standard_normal(shape, np.float32)
    # bfloat16 is no type of NumPy: the model converts.
    return values if dtype == "bfloat16" else values.astype(dtype)
