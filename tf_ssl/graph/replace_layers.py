"""A copy of a model in which some layers are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from tf_ssl.graph.rewriting import Rewriter
from tf_ssl.graph.walk import build_graph


def replace_layers(
    model: keras.Model,
    successors: Mapping[keras.Layer, Sequence[keras.Layer]],
    graph=None,
) -> keras.Model:
    """Copies a model; some of its layers are replaced by chains of others.

    All other layers are copied as they are, with all that they hold. Shared
    layers stay shared; nested models are copied likewise, composite layers give
    way to what is inside where a layer of theirs is replaced. The argument is
    not changed.

    Args:
        model: Built `keras.Model`.
        successors: Layer of the model, or of a model nested in it, to the
            layers that follow each other in its place; the first is called with
            all that the layer is called with. Those that have no weights yet
            are built by the call.
        graph: `build_graph(model, ...)` in which composite layers are open;
            None: they stay closed.

    Returns:
        A model, Sequential if the argument is.

    Raises:
        ValueError: The model is not built, or is a subclass with Python code
            that does not open; a layer to replace is not in it.
    """
    graph = graph or build_graph(model)
    present = {id(call.op) for call in graph.calls()}
    missing = [old.name for old in successors if id(old) not in present]
    if missing:
        raise ValueError(
            "Invalid value for argument successors. Expected layers of the "
            f"model. Received: {', '.join(sorted(missing))}"
        )
    return _Replace(graph, successors).model()


class _Replace(Rewriter):
    def __init__(self, graph, successors):
        super().__init__(graph)
        self._chains = {id(old): list(new) for old, new in successors.items()}

    def opens(self, nested):
        return any(id(c.op) in self._chains for c in nested.graph.calls())

    def successor(self, op):
        chain = self._chains.get(id(op))
        return None if chain is None else chain[0]

    def following(self, op) -> list:
        """Layers behind the successor of a layer."""
        return self._chains.get(id(op), [None])[1:]
