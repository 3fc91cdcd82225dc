"""Composite layers and subclassed models, called on symbolic tensors.

A layer whose `call` uses Keras layers and `keras.ops` shows what it does when
it is called on KerasTensors: each inner call becomes a node. Three things
would stay hidden, and are made visible while a layer is opened: variables and
arrays that it holds itself become `Source`s, a layer that it calls on numbers
alone (positions) is called on a `Source`, and a batch size that `call` asks
for is a number that stands out (`BATCH`) and is taken out again.
"""

from __future__ import annotations

import contextlib
import inspect
import threading

import keras

from tf_ssl.graph.opening.batch import batches_for
from tf_ssl.graph.opening.comparing import agree, signature
from tf_ssl.graph.opening.nodes import has_open_sizes
from tf_ssl.graph.opening.opener import Opened, Opener
from tf_ssl.graph.opening.reasons import HINT, CannotOpen

# Layers show symbolic tensors while they are opened: one thread at a time.
_lock = threading.RLock()


@contextlib.contextmanager
def nodes_forgotten(model):
    """Calls that are made meanwhile leave no trace in a model's layers.

    Other threads wait.
    """
    with _lock:
        operations = _all_operations(model)
        before = [
            (op, len(op._inbound_nodes), len(op._outbound_nodes), op._called)
            if isinstance(op, keras.Layer)
            else (op, len(op._inbound_nodes), len(op._outbound_nodes), None)
            for op in operations
        ]
        try:
            yield
        finally:
            for op, inbound, outbound, called in before:
                del op._inbound_nodes[inbound:]
                del op._outbound_nodes[outbound:]
                if called is not None:
                    op._called = called


def _all_operations(model):
    found, waiting = {}, [model]
    while waiting:
        op = waiting.pop()
        if id(op) in found:
            continue
        found[id(op)] = op
        if isinstance(op, keras.Layer):
            waiting += op._flatten_layers(include_self=False, recursive=False)
            waiting += getattr(op, "_operations", ())
    return list(found.values())


def open_layer(layer, node, is_known) -> Opened:
    """What a composite layer does in one of its calls.

    Args:
        layer: `keras.Layer`.
        node: Keras' node of the call.
        is_known: Function from a layer to whether it needs no opening; those
            of which it is not true are opened in turn.

    Raises:
        CannotOpen: It does not work on symbolic tensors, or does something
            that they do not show.
    """
    if getattr(node, "opened", None) is not None:
        return node.opened  # with the layer around it
    kwargs = dict(node.arguments.kwargs)
    # A model that is told passes that on in place of what the node has.
    stated = kwargs.pop("training", None)
    opened = _opened(layer, (node.arguments.args, kwargs), is_known)
    default = inspect.signature(layer.call).parameters.get("training")
    if stated and stated is not default.default:
        opened.trains_otherwise = True
    return opened


def open_model(model, is_known, length=None) -> Opened:
    """What a whole model does.

    Args:
        model: Built `keras.Model`.
        is_known: As for `open_layer`.
        length: Size of axes that are not known; None: they stay so.

    Raises:
        CannotOpen: As `open_layer`; or its input is not known.
    """
    structure = _input_of(model)

    def stated(shape):
        return (None, *(n or length for n in shape[1:]))

    structure = keras.tree.map_structure(
        lambda t: keras.KerasTensor(stated(t.shape), t.dtype, name=t.name),
        structure,
    )
    return _opened(model, ((structure,), {}), is_known)


def _opened(layer, arguments, is_known) -> Opened:
    batch, other, length = batches_for(layer, arguments)
    opened = Opener(is_known, batch).first_that_works(layer, arguments)
    if batch.is_used:
        again = Opener(is_known, other).first_that_works(layer, arguments)
        if signature(again) != signature(opened):
            raise CannotOpen(
                "it computes with the size of its batch, or with random numbers"
            )
    if has_open_sizes(arguments) and not _holds_for(
        length.size, opened, layer, arguments, Opener(is_known, other)
    ):
        raise CannotOpen(f"it computes with sizes of its input; {HINT}")
    return opened


def _holds_for(length, opened, layer, arguments, opener) -> bool:
    """Whether a layer does the same where sizes are known.

    Where they are not, `x[:ops.shape(x)[1]]` is all of x: no error says so.
    """
    made: dict[int, keras.KerasTensor] = {}

    def stated(tensor):
        if not isinstance(tensor, keras.KerasTensor):
            return tensor
        if id(tensor) not in made:
            shape = tensor.shape[:1] + tuple(
                n or length for n in tensor.shape[1:]
            )
            known = keras.KerasTensor(shape, tensor.dtype, name=tensor.name)
            mask = getattr(tensor, "_keras_mask", None)
            if mask is not None:
                known._keras_mask = stated(mask)
            made[id(tensor)] = known
        return made[id(tensor)]

    try:
        again = opener.first_that_works(
            layer, keras.tree.map_structure(stated, arguments)
        )
    except CannotOpen:
        return False
    return agree(opened, again)


def _input_of(model):
    """KerasTensors as a model takes them."""
    needed = [
        name
        for name, parameter in inspect.signature(model.call).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 1:
        raise CannotOpen(
            f"its call takes several arguments, {', '.join(needed)}: let it "
            "take one list or dict of them"
        )
    if isinstance(model, keras.Sequential):
        return model._functional.inputs[0]
    if getattr(model, "_inputs_struct", None) is not None:
        return model._inputs_struct
    config = model.get_build_config() or {}
    shapes = config.get("input_shape")
    if shapes is None:
        shapes = config.get("shapes_dict")
    if not model.built or shapes is None:
        raise CannotOpen(
            "the shape of its input is not known: call it on data once"
        )
    if isinstance(shapes, dict) and all(k.endswith("_shape") for k in shapes):
        shapes = next(iter(shapes.values()))

    def tensor(shape):
        return keras.KerasTensor((None, *shape[1:]), model.input_dtype)

    return _with_names(keras.tree.map_shape_structure(tensor, shapes), "input")


def _with_names(structure, name):
    """Names of their places, the same whenever it is opened."""
    if isinstance(structure, dict):
        return {k: _with_names(v, str(k)) for k, v in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(
            _with_names(v, f"{name}_{i}") for i, v in enumerate(structure)
        )
    return keras.KerasTensor(structure.shape, structure.dtype, name=name)
