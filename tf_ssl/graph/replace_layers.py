"""A copy of a model in which some layers are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from tf_ssl.graph.rewriting import Rewriter
from tf_ssl.graph.walk import build_graph, path_of


def replace_layers(
    model: keras.Model,
    successors: Mapping[keras.Layer, Sequence[keras.Layer]],
    graph=None,
) -> keras.Model:
    """Copies a model; some of its layers are replaced by chains of others.

    All other layers are copied as they are, with all that they hold. Shared
    layers stay shared; nested models are copied likewise, composite layers give
    way to what is inside where a layer of theirs is replaced, under names that
    begin with theirs: `"block_dense"`. The argument is not changed.

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
        self._must_open: set[int] = set()
        # Of those inside composite layers: what the layer's name becomes.
        self._inside: dict[int, str] = {}
        for call in graph.calls():
            composite = call.parent is not None and not call.parent.is_model
            if composite and id(call.op) in self._chains:
                path = path_of(call.op, call.parent, "_")
                self._inside.setdefault(id(call.op), path)

    def opens(self, nested):
        return id(nested) in self._must_open or any(
            id(c.op) in self._chains for c in nested.graph.calls()
        )

    def _nested(self, nested, env, chain):
        if nested.is_model or self.opens(nested):
            return super()._nested(nested, env, chain)
        try:
            return super()._nested(nested, env, chain)
        except Exception:
            # What its layers did could be seen where it was opened, but it
            # cannot be called by itself, as Keras finds no shapes (KerasHub's
            # attention with a cache).
            self._must_open.add(id(nested))
            return super()._nested(nested, env, chain)

    def successor(self, op):
        chain = self._chains.get(id(op))
        if chain is None:
            return None
        self._own_names = [layer.name for layer in chain]
        return chain[0]

    def called(self, op, new, outputs):
        path = self._inside.get(id(op))
        if path is None:
            return
        # The first has got the name of the place; the last is what keeps it.
        place = new.name
        for layer, own in zip(
            self._chains[id(op)], self._own_names, strict=True
        ):
            for start in (path, op.name):
                if own.startswith(start):
                    own = own.removeprefix(start)
                    break
            else:
                own = f"_{own}"
            layer.name = self._named(place + own) if own else place

    def following(self, op) -> list:
        """Layers behind the successor of a layer."""
        return self._chains.get(id(op), [None])[1:]
