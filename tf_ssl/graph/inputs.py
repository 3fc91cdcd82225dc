"""Inputs for a model when the user gives none, or another number of them."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import functional, nodes


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


def static_batch(model) -> int | None:
    """The batch size that a model was built for; None: any."""
    function = functional(model)
    return function.inputs[0].shape[0] if function is not None else None


def inputs_for(
    model, batch_size: int = 1, sample=None, seed: int = 0, unknown=None
):
    """Inputs for one call of a model.

    Args:
        model: Built `keras.Model`.
        batch_size: Number of examples.
        sample: Array, or arrays in the structure that the model takes, with a
            batch axis; its examples are repeated or cut to `batch_size`. None:
            normal noise; integers below the `input_dim` of the embeddings that
            read them; random truth values.
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
            lambda x: x[np.arange(batch_size) % len(x)],
            typed(model, sample),
        )
    function = functional(model)
    if function is None:
        raise ValueError(
            "Invalid value for argument sample. Expected an example of the "
            f"model's input, for {model.name} is no Functional or Sequential "
            "model, whose input is known. Received: sample=None"
        )
    limits = _limits(function)
    random = np.random.default_rng(seed)
    structure = (
        function.inputs[0]
        if isinstance(model, keras.Sequential)
        else function.input
    )
    return keras.tree.map_structure(
        lambda x: _draw(x, batch_size, limits.get(id(x)), random, unknown),
        structure,
    )


def typed(model, sample):
    """A sample as arrays of the types that a model takes.

    Raises:
        ValueError: It holds another number of arrays than the model takes, or
            no example.
    """
    arrays = [np.asarray(x) for x in keras.tree.flatten(sample)]
    function = functional(model)
    if function is not None and len(arrays) != len(function.inputs):
        raise ValueError(
            f"Invalid value for argument sample. Expected "
            f"{len(function.inputs)} arrays, for the inputs "
            f"{[x.name for x in function.inputs]} of {model.name}. Received: "
            f"{len(arrays)} arrays"
        )
    if any(x.ndim == 0 or len(x) == 0 for x in arrays):
        raise ValueError(
            "Invalid value for argument sample. Expected arrays with a batch "
            "axis and at least one example. Received: shapes "
            f"{[x.shape for x in arrays]}"
        )
    if function is not None:
        arrays = [
            # bfloat16 and string are no types of NumPy.
            x
            if tensor.dtype in ("bfloat16", "string")
            else x.astype(tensor.dtype)
            for x, tensor in zip(arrays, function.inputs, strict=True)
        ]
    return keras.tree.pack_sequence_as(sample, arrays)


def _limits(function) -> dict[int, int]:
    """Integer input -> the number below which its values stay."""
    found: dict[int, int] = {}
    smallest = []

    def visit(function, own):
        for node in nodes(function):
            inner = functional(node.operation)
            if inner is not None:
                outer = zip(inner.inputs, node.input_tensors, strict=False)
                visit(inner, {id(t): own.get(id(o)) for t, o in outer})
            elif isinstance(node.operation, keras.layers.Embedding):
                limit = node.operation.input_dim
                smallest.append(limit)
                name = own.get(id(node.input_tensors[0]))
                if name is not None:
                    found[name] = min(limit, found.get(name, limit))

    visit(function, {id(t): id(t) for t in function.inputs})
    # One that no embedding reads as it is may reach any of them.
    default = min(smallest, default=2)
    return {id(t): found.get(id(t), default) for t in function.inputs}


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
    if tensor.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if "int" in tensor.dtype:
        return random.integers(0, limit, shape).astype(tensor.dtype)
    values = random.standard_normal(shape, np.float32)
    # bfloat16 is no type of NumPy: the model converts.
    return values if tensor.dtype == "bfloat16" else values.astype(tensor.dtype)
