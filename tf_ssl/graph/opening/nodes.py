"""Nodes and tensors of Keras' graphs, made and found."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.ops.node import Node  # as Operation's own calls make it

from tf_ssl.graph.copying.live_copy import copy_layer
from tf_ssl.graph.opening.reasons import CannotOpen
from tf_ssl.graph.sources import Source


def runs_its_graph(model) -> bool:
    """Whether a model with a graph of layers computes what the graph says."""
    call = type(model).call
    return getattr(call, "__module__", "").startswith("keras.src.models")


def has_open_sizes(arguments) -> bool:
    """Whether a size of a tensor, but for the batch, is not known."""
    return any(
        isinstance(x, keras.KerasTensor) and None in x.shape[1:]
        for x in keras.tree.flatten(arguments)
    )


def stand_ins(arguments, size) -> tuple:
    """Fresh KerasTensors in place of those among arguments, and their masks.

    Args:
        arguments: Of a call.
        size: What stands in place of an open batch; None: it stays open.

    Returns:
        ({id(tensor): its stand-in}, stand-ins, positions of the first ones
        among the tensors, masks that are no arguments; the last of the
        stand-ins are theirs).
    """
    placeholders: dict[int, Any] = {}
    inputs: list = []

    def placeholder(tensor):
        shape = tuple(tensor.shape)
        if shape and shape[0] is None:
            shape = (size, *shape[1:])
        made = keras.KerasTensor(
            shape, tensor.dtype, name=tensor.name, sparse=tensor.sparse
        )
        placeholders[id(tensor)] = made
        inputs.append(made)

    flat = [
        x
        for x in keras.tree.flatten(arguments)
        if isinstance(x, keras.KerasTensor)
    ]
    positions, masks = [], []
    for i, tensor in enumerate(flat):
        if id(tensor) not in placeholders:
            placeholder(tensor)
            positions.append(i)
    for tensor in flat:
        mask = getattr(tensor, "_keras_mask", None)
        if mask is None:
            continue
        if id(mask) not in placeholders:
            placeholder(mask)
            masks.append(mask)
        placeholders[id(tensor)]._keras_mask = placeholders[id(mask)]
    return placeholders, inputs, positions, masks


def node_of(layer, args, kwargs, outputs, opened):
    """Fresh tensors of a layer's outputs, with a node that made them."""
    fresh: dict[int, Any] = {}

    def renewed(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        if id(x) not in fresh:
            fresh[id(x)] = keras.KerasTensor(x.shape, x.dtype)
        return fresh[id(x)]

    outputs = keras.tree.map_structure(renewed, outputs)
    tensors = [
        x
        for x in keras.tree.flatten(outputs)
        if isinstance(x, keras.KerasTensor)
    ]
    node = Node(layer, call_args=args, call_kwargs=kwargs, outputs=tensors)
    node.opened = opened
    return outputs


def nodes_of(outputs, inputs) -> list:
    """Nodes that lead to tensors, each after those that it depends on."""
    found, done = [], set()
    waiting = [(t, False) for t in reversed(outputs)]
    while waiting:
        tensor, is_ready = waiting.pop()
        if id(tensor) in inputs:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise CannotOpen("a tensor comes from outside of it")
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) in done:
            continue
        if is_ready:
            done.add(id(node))
            found.append(node)
            continue
        waiting.append((tensor, True))
        if not isinstance(node.operation, Source):
            waiting += [(t, False) for t in reversed(node.input_tensors)]
    return found


def refuse_variables(layer, args, kwargs, call) -> None:
    """Raises CannotOpen if calling a layer would make variables."""
    own = getattr(type(layer).build, "__module__", "")
    if own == "keras.src.layers.layer" and not layer._layers:
        return
    copy = copy_layer(layer)
    try:
        call(copy, *args, **kwargs)
    except Exception:  # whatever the layer's own code raises
        is_free = False
    else:
        is_free = not copy.variables
    if not is_free:
        raise CannotOpen(
            f"{layer.name} in it is not built: call the model on data once"
        )
