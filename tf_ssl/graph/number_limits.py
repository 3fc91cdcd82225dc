"""Integers that a model takes: how large they may be."""

from __future__ import annotations

import keras

from tf_ssl.graph.walk import Bind, build_graph

# Operations of keras.ops, and layers, whose results hold the same integers.
_PASS = {
    "BroadcastTo",
    "Cast",
    "Copy",
    "Expand",
    "ExpandDims",
    "Flip",
    "GetItem",
    "Repeat",
    "Reshape",
    "Roll",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
}
_PASS_LAYERS = (
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Reshape,
)
_COMPARISONS = {
    "Equal",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "LogicalNot",
    "NotEqual",
}


def limits_of(model, names) -> list[int]:
    """The number below which each input of a model stays.

    An input is followed through casts and reshapes to the Embeddings that read
    it, in composite layers and subclassed models as well. One that none reads
    as it is may reach any of them in another way: the smallest has a row for
    it. Without any: 256 for uint8, else 2.

    Args:
        model: Built `keras.Model`.
        names: Of its inputs: what is called a mask is one.

    Returns:
        Of each input, in their order.

    Raises:
        ValueError: A subclassed model does not open.
    """
    # Whatever Keras' own layers are, all that opens is opened.
    graph = build_graph(model, lambda layer: False)
    follow = _Follow(graph)
    smallest = min(follow.rows, default=None)
    found = []
    for name, tensor in zip(names, graph.inputs, strict=True):
        limit = follow.limit(tensor)
        if limit is None:
            limit = smallest
            if name.endswith("mask") or limit is None:
                limit = 2
                if tensor.dtype == "uint8":
                    limit = 256
        found.append(limit)
    return found


class _Follow:
    """Follows tensors to what reads them as numbers of rows."""

    def __init__(self, graph):
        self._readers: dict[int, list] = {}
        self.rows: list[int] = []  # of all embeddings
        for call in graph.calls():
            self.rows += _rows_inside(call.op)
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)

    def limit(self, tensor) -> int | None:
        """The least of what reads a tensor; None: nothing counts rows."""
        found, waiting, seen = [], [tensor], set()
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            for call in self._readers.get(id(tensor), ()):
                rows = _rows_of(call, tensor)
                if rows is not None:
                    found.append(rows)
                elif _passes(call):
                    waiting += call.outputs
        return min(found, default=None)


def _passes(call) -> bool:
    op = call.op
    if type(op).__name__ == "Cast" and str(op.dtype) == "bool":
        return False
    return isinstance(op, (Bind, *_PASS_LAYERS)) or type(op).__name__ in _PASS


def _rows_of(call, tensor) -> int | None:
    """How many numbers a call has rows for; None: it does not count any."""
    op = call.op
    if isinstance(op, keras.layers.CategoryEncoding):
        return op.num_tokens
    if isinstance(op, keras.Layer):
        return min(_rows_inside(op), default=None)
    if type(op).__name__ == "OneHot":
        return op.num_classes
    if type(op).__name__ == "Take" and call.index(tensor) == 1:
        table = call.inputs[0].shape
        axis = op.axis
        return table[axis] if axis is not None else None
    return None


def _rows_inside(op) -> list[int]:
    """Rows of the Embeddings that a layer is, or holds."""
    if not isinstance(op, keras.Layer):
        return []
    return [
        layer.input_dim
        for layer in op._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
