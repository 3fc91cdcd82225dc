"""A model as a list of calls, with what is nested or composite taken apart."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras

from tf_ssl.graph import opening
from tf_ssl.graph.batch import Batch, CannotOpen
from tf_ssl.graph.sources import Source


@dataclasses.dataclass(eq=False)
class Tensor:
    """A value that flows through a graph.

    Attributes:
        shape: With None where a size is not known.
        dtype: Its name.
        name: Of the KerasTensor it stands for.
    """

    shape: tuple
    dtype: str
    name: str

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or of a keras.ops operation.

    Attributes:
        op: The layer or operation; `Bind` where a nested graph begins or ends;
            `Source` for a variable or an array.
        args: Positional arguments, `Tensor`s in place of KerasTensors.
        kwargs: Likewise.
        inputs: The `Tensor`s among them, masks left out.
        outputs: `Tensor`s.
        parent: The `Nested` that it is part of, or None.
    """

    op: Any
    args: tuple
    kwargs: dict
    inputs: list[Tensor]
    outputs: list[Tensor]
    parent: Nested | None = None

    @property
    def input_shapes(self) -> list[tuple]:
        """Shapes of the inputs."""
        return [tensor.shape for tensor in self.inputs]

    @property
    def output_shapes(self) -> list[tuple]:
        """Shapes of the outputs."""
        return [tensor.shape for tensor in self.outputs]

    @property
    def arguments(self) -> dict:
        """All arguments by the names that `op.call` gives them."""
        signature = inspect.signature(self.op.call)
        bound = signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                found.update(found.pop(name, {}))
        return found

    def index(self, tensor) -> int | None:
        """Position of a tensor among the inputs; None: not one of them."""
        for i, other in enumerate(self.inputs):
            if other is tensor:
                return i
        return None


@dataclasses.dataclass(eq=False)
class Nested:
    """One call of a nested model, or of a composite layer, with its inside.

    Attributes:
        op: The model or layer.
        args: As `Call`'s.
        kwargs: Likewise.
        outputs: `Tensor`s.
        parent: The `Nested` around it, or None.
        graph: Inside.
        is_model: A Functional or Sequential model, which stays one; else a
            composite layer or a subclassed model.
        trains_otherwise: Its own code does something else in training, which
            the graph does not show.
        masks: For each output the `Tensor` that is its mask, or None.
    """

    op: Any
    args: tuple
    kwargs: dict
    outputs: list[Tensor]
    parent: Nested | None
    graph: Graph
    is_model: bool
    trains_otherwise: bool = False
    masks: list = dataclasses.field(default_factory=list)


class Bind:
    """Passes a tensor into or out of a nested graph."""

    name = "bind"


@dataclasses.dataclass(eq=False)
class Graph:
    """The inside of a model or of a composite layer.

    Attributes:
        model: It.
        inputs: `Tensor`s.
        outputs: `Tensor`s.
        items: `Call`s and `Nested`s, each after those that it depends on.
        inputs_structure: Structure that `model` is called with.
        outputs_structure: Structure that it returns.
        closed: (layer's name, reason) of composite layers that do not open.
        batch: The size that stood for the batch while it was opened, or None.
    """

    model: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    items: list
    inputs_structure: Any = None
    outputs_structure: Any = None
    closed: list = dataclasses.field(default_factory=list)
    batch: Batch | None = None

    def calls(self) -> list[Call]:
        """All `Call`s, those of nested graphs in their place."""
        found = []
        for item in self.items:
            if isinstance(item, Nested):
                found += item.graph.calls()
            else:
                found.append(item)
        return found


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


def path_of(op, parent, separator: str) -> str:
    """An operation's name behind those of the composite layers around it."""
    names = [op.name]
    while parent is not None and not parent.is_model:
        if not isinstance(parent.op, keras.Model):
            names.append(parent.op.name)
        parent = parent.parent
    return separator.join(reversed(names))
