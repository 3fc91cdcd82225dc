"""A batch size that stands out, and is taken out of a graph again."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.sources import Source

# A batch size that no model has: where it turns up in an argument, the layer
# has asked for the size of its batch.
BATCH = 1009


class CannotOpen(Exception):
    """The reason why a layer cannot be opened, for people."""


def without_batch(shape) -> tuple:
    """A shape with None in place of `BATCH` and its multiples."""
    return tuple(
        None if n is not None and n > 0 and n % BATCH == 0 else n for n in shape
    )


def take_batch_out(node):
    """Makes a node hold for any batch size."""
    op = node.operation
    if isinstance(op, keras.Layer | Source):
        return
    name = type(op).__name__
    held = {k: v for k, v in vars(op).items() if k[0] != "_"}
    if any(isinstance(v, list | tuple) and None in v for v in held.values()):
        raise CannotOpen(f"its operation {name} needs a size that is not known")
    if name == "Reshape":
        _reshape_any_batch(node)
        return

    def any_batch(x):
        if _is_batch(x):
            raise CannotOpen(
                f"its operation {name} is given the size of the batch"
            )
        if not keras.ops.is_tensor(x) or not any(map(_is_batch, x.shape)):
            return x
        value = keras.ops.convert_to_numpy(x)
        if _is_batch(value.shape[0]) and (value == value[:1]).all():
            return value[:1]  # the same for each example
        raise CannotOpen(
            f"its operation {name} is given an array with an entry for each "
            "example"
        )

    for value in keras.tree.flatten(held):
        any_batch(value)
    node.arguments.args, node.arguments.kwargs = keras.tree.map_structure(
        any_batch, (node.arguments.args, node.arguments.kwargs)
    )


def _reshape_any_batch(node):
    op = node.operation
    shape = tuple(op.newshape)
    if not any(map(_is_batch, shape)):
        return
    known = node.outputs[0].shape
    new = tuple(
        -1 if _is_batch(n) else known[i] if n == -1 else n
        for i, n in enumerate(shape)
    )
    if new.count(-1) > 1 or None in new:
        raise CannotOpen(
            "it reshapes its batch and another unknown size at once"
        )
    node.operation = type(op)(new)


def _is_batch(value) -> bool:
    is_integer = isinstance(value, int | np.integer)
    return (
        is_integer
        and not isinstance(value, bool)
        and value > 0
        and value % BATCH == 0
    )
