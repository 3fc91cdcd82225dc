"""The calls of a model in order, nested models taken apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or of a keras.ops operation.

    Attributes:
        op: The layer or operation.
        inputs: Keys of the tensors among its arguments, masks left out.
        outputs: Keys of its results.
        input_shapes: Shapes of the tensors, None where a size is not known.
        output_shapes: Likewise.
        arguments: All arguments, `(args, kwargs)`, with KerasTensors in them.
    """

    op: Any
    inputs: list
    outputs: list
    input_shapes: list
    output_shapes: list
    arguments: tuple


@dataclasses.dataclass(eq=False)
class Graph:
    """All calls of a model, each after those that it depends on.

    Attributes:
        calls: `Call`s.
        inputs: Keys of the model's inputs.
        outputs: Keys of its outputs.
        shapes: Key -> shape.
        input_names: Names of the inputs.
        nested: For each nested model the keys of its inputs, once a call.
    """

    calls: list
    inputs: list
    outputs: list
    shapes: dict
    input_names: list
    nested: dict


def functional(model):
    """The graph of layers of a Functional or Sequential model, else None."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def nodes(function):
    """The nodes of a graph of layers, inputs first."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def build_graph(model) -> Graph:
    """The graph of a built Functional or Sequential model.

    Raises:
        ValueError: The model is not built, or is a subclass of keras.Model
            with layers in Python code.
    """
    function = functional(model)
    if function is None:
        how = (
            "Build it first: give it an Input, or call it once"
            if isinstance(model, keras.Sequential)
            else "A subclass of keras.Model does not show how its layers are "
            "connected: build the same layers with the functional API, "
            "keras.Model(inputs, outputs)"
        )
        raise ValueError(
            "Invalid value for argument model. Expected a built Functional or "
            f"Sequential model. Received: {model!r}. {how}."
        )
    graph = Graph([], [], [], {}, [], {})
    keys = {}

    def key(prefix, tensor):
        name = (prefix, id(tensor))
        # An input of a nested model is the tensor that it was called with.
        while name in keys:
            name = keys[name]
        graph.shapes.setdefault(name, tuple(tensor.shape))
        return name

    def walk(function, prefix):
        for i, node in enumerate(nodes(function)):
            inner = functional(node.operation)
            if inner is not None:
                below = (*prefix, i)
                called_with = [key(prefix, t) for t in node.input_tensors]
                for ours, theirs in zip(
                    called_with, inner.inputs, strict=False
                ):
                    keys[(below, id(theirs))] = ours
                graph.nested.setdefault(node.operation, []).append(called_with)
                walk(inner, below)
                for ours, theirs in zip(
                    node.output_tensors, inner.outputs, strict=True
                ):
                    keys[(prefix, id(ours))] = key(below, theirs)
                continue
            tensors = _tensors_without_masks(node)
            graph.calls.append(
                Call(
                    node.operation,
                    [key(prefix, t) for t in tensors],
                    [key(prefix, t) for t in node.output_tensors],
                    [tuple(t.shape) for t in tensors],
                    [tuple(t.shape) for t in node.output_tensors],
                    (node.arguments.args, node.arguments.kwargs),
                )
            )

    graph.inputs = [key((), t) for t in function.inputs]
    graph.input_names = [t.name for t in function.inputs]
    walk(function, ())
    graph.outputs = [key((), t) for t in function.outputs]
    return graph


def _tensors_without_masks(node):
    """What a node is called with, less what says which steps count."""
    kwargs = {k: v for k, v in node.arguments.kwargs.items() if k != "mask"}
    return [
        x
        for x in keras.tree.flatten((node.arguments.args, kwargs))
        if hasattr(x, "_keras_history")
    ]
