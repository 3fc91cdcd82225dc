"""A model as a list of calls, with what is nested or composite taken apart."""

from __future__ import annotations

import keras

from tf_ssl.graph import opening
from tf_ssl.graph.calls import Bind, Call, Graph, Nested, Tensor, path_of
from tf_ssl.graph.opening import CannotOpen
from tf_ssl.graph.sources import Source

__all__ = [
    "Bind",
    "Call",
    "Graph",
    "Nested",
    "Tensor",
    "build_graph",
    "functional",
    "nodes",
    "path_of",
]


def functional(model):
    """The graph of layers of a Functional or Sequential model, else None."""
    if isinstance(model, keras.Sequential):
        return model._functional if opening.runs_its_graph(model) else None
    if hasattr(model, "_nodes_by_depth") and opening.runs_its_graph(model):
        return model
    return None


def nodes(function):
    """The nodes of a graph of layers, inputs first."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def build_graph(model, is_known=None, length=None) -> Graph:
    """The graph of a built model.

    Args:
        model: Functional, Sequential or subclassed model.
        is_known: Function from a layer to whether it needs no opening; None:
            no composite layer is opened.
        length: Integer: the size of every axis that the model's inputs leave
            open; None: they stay open.

    Raises:
        ValueError: The model is not built, or is a subclass with Python code
            that cannot be followed; the message has the reason.
    """
    is_known = is_known or (lambda layer: True)
    closed: dict[int, tuple] = {}
    with opening.nodes_forgotten(model):
        while True:
            builder = _Builder(
                lambda layer: id(layer) in closed or is_known(layer)
            )
            graph = builder.root(model, length)
            tied = _tied(graph)
            if not tied:
                graph.closed += closed.values()
                return graph
            closed.update(tied)


def _tied(graph) -> dict[int, tuple]:
    """Composite layers that read variables of layers that are called too.

    Taken apart they would read others, which training moves elsewhere.

    Returns:
        id(layer) -> (its name, reason).
    """
    calls = graph.calls()
    owners = {
        id(v): call.op
        for call in calls
        if isinstance(call.op, keras.Layer)
        for v in call.op.variables
    }
    found = {}
    for call in calls:
        if not isinstance(call.op, Source) or id(call.op.value) not in owners:
            continue
        path, owner = call.op.value.path, owners[id(call.op.value)].name
        nested = call.parent
        if nested is None or nested.is_model:
            raise ValueError(
                "Invalid value for argument model. Expected variables of "
                f"layers to be read by these alone. Received: {path} of layer "
                f"{owner}, which is an argument of another operation too. Let "
                "both be one layer of your own with a @tf_ssl.structure_rule."
            )
        found[id(nested.op)] = (
            nested.op.name,
            f"it reads {path} itself, a variable of {owner}, which is called "
            "too",
        )
    return found


class _Builder:
    def __init__(self, is_known):
        self._is_known = is_known
        self._closed: dict[int, tuple] = {}

    def root(self, model, length) -> Graph:
        """The graph of the outermost model."""
        function = functional(model)
        if getattr(model, "_functional", model) is None:
            raise ValueError(
                "Invalid value for argument model. Expected a built Functional "
                f"or Sequential model. Received: {model!r}. Build it first: "
                "give it an Input, or call it once."
            )
        opens = length is not None and any(
            None in t.shape[1:] for t in (function.inputs if function else ())
        )
        if function is not None and not opens:
            graph = self._functional(model, function, None)
        else:
            try:
                opened = opening.open_model(model, self._is_known, length)
            except CannotOpen as error:
                raise ValueError(
                    "Invalid value for argument model. Expected a built "
                    f"Functional or Sequential model. Received: {model!r}. A "
                    "subclass of keras.Model is opened by calling it on "
                    f"symbolic tensors, which failed: {error}. Or build the "
                    "same layers with the functional API, "
                    "keras.Model(inputs, outputs)."
                ) from error
            graph = self._opened(model, opened, None)
        graph.closed = list(dict.fromkeys(self._closed.values()))
        return graph

    def _functional(self, model, function, parent) -> Graph:
        env: dict[int, Tensor] = {}
        graph = Graph(
            model,
            [self._new(env, t) for t in function.inputs],
            [],
            [],
            function.inputs[0]
            if isinstance(model, keras.Sequential)
            else function._inputs_struct,
            function._outputs_struct,
        )
        for node in nodes(function):
            self._node(node, graph, env, parent)
        graph.outputs = [env[id(t)] for t in function.outputs]
        return graph

    def _opened(self, layer, opened, parent) -> Graph:
        env: dict[int, Tensor] = {}
        graph = Graph(
            layer,
            [self._new(env, t, opened.batch) for t in opened.inputs],
            [],
            [],
            opened.inputs_structure,
            opened.outputs_structure,
            batch=opened.batch,
        )
        for node in opened.nodes:
            self._node(node, graph, env, parent)
        graph.outputs = [env[id(t)] for t in opened.outputs]
        return graph

    def _new(self, env, tensor, batch=None) -> Tensor:
        # What was opened at a stated batch size holds for any.
        shape = tuple(tensor.shape)
        if batch is not None:
            shape = batch.without(shape)
        made = Tensor(shape, str(tensor.dtype), tensor.name)
        env[id(tensor)] = made
        return made

    def _node(self, node, graph, env, parent):
        op = node.operation
        for tensor in node.input_tensors:
            self._known(tensor, graph, env, parent)

        def tensor_of(x):
            if hasattr(x, "_keras_history"):
                return env[id(x)]
            if isinstance(x, keras.Variable):
                source = Tensor(tuple(x.shape), str(x.dtype), x.name)
                graph.items.append(
                    Call(Source(x), (), {}, [], [source], parent)
                )
                return source
            return x

        args, kwargs = keras.tree.map_structure(
            tensor_of, (node.arguments.args, node.arguments.kwargs)
        )
        outputs = [self._new(env, t, graph.batch) for t in node.outputs]
        if isinstance(op, Source):
            graph.items.append(Call(op, (), {}, [], outputs, parent))
            return
        nested = self._nested(node, args, kwargs, outputs, graph, env, parent)
        if nested is not None:
            graph.items.append(nested)
            return
        flat = keras.tree.flatten(
            (args, {k: v for k, v in kwargs.items() if not _is_mask(k)})
        )
        inputs = [x for x in flat if isinstance(x, Tensor)]
        graph.items.append(Call(op, args, kwargs, inputs, outputs, parent))

    def _known(self, tensor, graph, env, parent) -> Tensor | None:
        """The `Tensor` of a KerasTensor: made now if it is a mask."""
        if tensor is None:
            return None
        if id(tensor) not in env:  # a mask that nothing else reads
            history = tensor._keras_history
            producer = history.operation._inbound_nodes[history.node_index]
            self._node(producer, graph, env, parent)
        return env[id(tensor)]

    def _nested(
        self, node, args, kwargs, outputs, graph, env, parent
    ) -> Nested | None:
        op = node.operation
        inner = functional(op)
        if isinstance(op, keras.layers.TimeDistributed):
            inner = functional(op.layer)
        if inner is not None:
            nested = Nested(op, args, kwargs, outputs, parent, None, True)
            model = op.layer if inner is not functional(op) else op
            nested.graph = self._functional(model, inner, nested)
            given = [
                x
                for x in keras.tree.flatten((args, kwargs))
                if isinstance(x, Tensor)
            ]
        elif not isinstance(op, keras.Layer) or self._is_known(op):
            return None
        else:
            try:
                opened = opening.open_layer(op, node, self._is_known)
            except CannotOpen as error:
                self._closed[id(op)] = (op.name, str(error))
                return None
            nested = Nested(op, args, kwargs, outputs, parent, None, False)
            nested.trains_otherwise = opened.trains_otherwise
            nested.graph = self._opened(op, opened, nested)
            tensors = keras.tree.flatten((args, kwargs))
            given = [x for x in tensors if isinstance(x, Tensor)]
            given = [given[i] for i in opened.positions]
            given += [self._known(m, graph, env, parent) for m in opened.masks]
        bound = list(zip(given, nested.graph.inputs, strict=False))
        nested.graph.items[:0] = [
            Call(Bind(), (a,), {}, [a], [b], nested) for a, b in bound
        ]
        nested.graph.items += [
            Call(Bind(), (a,), {}, [a], [b], nested)
            for a, b in zip(nested.graph.outputs, outputs, strict=True)
        ]
        if not nested.is_model:
            nested.masks = [
                self._known(getattr(t, "_keras_mask", None), graph, env, parent)
                for t in node.outputs
            ]
        return nested


def _is_mask(name: str) -> bool:
    return name == "mask" or name.endswith("_mask")
