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
import dataclasses
import re
from typing import Any

import keras
import numpy as np

from tf_ssl.graph.sources import Source

# A batch size that no model has: where it turns up in an argument, the layer
# has asked for the size of its batch.
BATCH = 1009


class CannotOpen(Exception):
    """The reason why a layer cannot be opened, for people."""


@dataclasses.dataclass(eq=False)
class Opened:
    """What a layer did.

    Attributes:
        inputs: KerasTensors that it was called on.
        positions: Which of the tensors among its arguments they stand for.
        outputs: KerasTensors that it returned, in a flat list.
        nodes: Keras' nodes, each after those that it depends on.
        inputs_structure: KerasTensors as the layer is called.
        outputs_structure: As the layer returns them.
        trains_otherwise: In training its own code does something else.
    """

    inputs: list
    positions: list
    outputs: list
    nodes: list
    inputs_structure: Any
    outputs_structure: Any
    trains_otherwise: bool = False


def runs_its_graph(model) -> bool:
    """Whether a model with a graph of layers computes what the graph says."""
    call = type(model).call
    return getattr(call, "__module__", "").startswith("keras.src.models")


def without_batch(shape) -> tuple:
    """A shape with None in place of `BATCH` and its multiples."""
    return tuple(
        None if n is not None and n > 0 and n % BATCH == 0 else n for n in shape
    )


@contextlib.contextmanager
def nodes_forgotten(model):
    """Calls that are made meanwhile leave no trace in a model's layers."""
    operations = _all_operations(model)
    before = [
        (op, len(op._inbound_nodes), len(op._outbound_nodes))
        for op in operations
    ]
    try:
        yield
    finally:
        for op, inbound, outbound in before:
            del op._inbound_nodes[inbound:]
            del op._outbound_nodes[outbound:]


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


def open_layer(layer, node) -> Opened:
    """What a composite layer does in one of its calls.

    Args:
        layer: `keras.Layer`.
        node: Keras' node of the call.

    Raises:
        CannotOpen: It does not work on symbolic tensors, or does something
            that they do not show.
    """
    arguments = (node.arguments.args, node.arguments.kwargs)
    tensors = [
        x for x in keras.tree.flatten(arguments) if hasattr(x, "_keras_history")
    ]
    shapes = [tuple(t.shape) for t in tensors]
    return _first_that_works(layer, arguments, tensors, shapes)


def open_model(model, length=None) -> Opened:
    """What a whole model does.

    Args:
        model: Built `keras.Model`.
        length: Size of axes that are not known; None: they stay so.

    Raises:
        CannotOpen: As `open_layer`; or its input is not known.
    """
    structure = _input_of(model)

    def stated(shape):
        return (None, *(n or length for n in shape[1:]))

    tensors = keras.tree.flatten(structure)
    shapes = [stated(t.shape) for t in tensors]
    return _first_that_works(model, ((structure,), {}), tensors, shapes)


def _input_of(model):
    """KerasTensors as a model takes them."""
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
        shapes = list(shapes.values())
        if len(shapes) > 1:
            raise CannotOpen("its call takes several arguments")
        shapes = shapes[0]

    def tensor(shape):
        return keras.KerasTensor((None, *shape[1:]), model.input_dtype)

    return keras.tree.map_shape_structure(tensor, shapes)


def _first_that_works(layer, arguments, tensors, shapes) -> Opened:
    if not isinstance(layer, keras.Model):
        own = type(layer).call
        if getattr(own, "__module__", "").startswith("keras.src"):
            raise CannotOpen("it is Keras' own, and has no rule")
    errors = []
    for batch in (None, BATCH):
        sizes = [
            (batch if s and s[0] is None else s[0], *s[1:]) if s else s
            for s in shapes
        ]
        try:
            opened = _open(layer, arguments, tensors, sizes)
            if getattr(layer, "_call_has_training_arg", False):
                opened.trains_otherwise = _trains_otherwise(
                    layer, arguments, tensors, sizes, opened
                )
            return opened
        except CannotOpen as error:
            errors.append(str(error))
        except Exception as error:  # whatever the layer's own code raises
            errors.append(f"{type(error).__name__}: {_first_line(error)}")
    if any(None in s[1:] for s in shapes):
        errors.append(
            "sizes of its input are not known: length=… states them, and the "
            "smaller model takes inputs of that length"
        )
    raise CannotOpen("; ".join(dict.fromkeys(errors)))


def _trains_otherwise(layer, arguments, tensors, sizes, opened) -> bool:
    args, kwargs = arguments
    names = layer.call_signature_parameters
    if "training" in names[: len(args)]:
        return True
    try:
        training = _open(
            layer, (args, {**kwargs, "training": True}), tensors, sizes
        )
    except Exception:  # whatever the layer's own code raises
        return True
    return [_kind(n) for n in training.nodes] != [
        _kind(n) for n in opened.nodes
    ]


def _kind(node):
    op = node.operation
    return id(op) if isinstance(op, keras.Layer) else type(op).__name__


def _first_line(error):
    """What went wrong, without what Keras puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [
        re.sub(r"\x1b\[\d+m", "", line)
        for line in lines
        if line
        and "Exception encountered when calling" not in line
        and "Could not automatically infer" not in line
        and "Error encountered" not in line
    ]
    return lines[0][:200] if lines else ""


def _open(layer, arguments, tensors, shapes) -> Opened:
    placeholders: dict[int, Any] = {}
    inputs, positions = [], []
    for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
        if id(tensor) not in placeholders:
            made = keras.KerasTensor(
                shape, tensor.dtype, name=tensor.name, sparse=tensor.sparse
            )
            placeholders[id(tensor)] = made
            inputs.append(made)
            positions.append(i)
    for tensor in tensors:
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None and id(mask) in placeholders:
            placeholders[id(tensor)]._keras_mask = placeholders[id(mask)]
    args, kwargs = keras.tree.map_structure(
        lambda x: placeholders.get(id(x), x), arguments
    )
    structure = args[0] if args else None
    reads = _Reads()
    with _symbolic(layer, inputs[0]), reads:
        args, kwargs = keras.tree.map_structure(
            lambda x: _as_called(layer, x), (args, kwargs)
        )
        outputs = layer.call(*args, **kwargs)
    if reads.variables:
        raise CannotOpen(
            f"it reads its variable {reads.variables[0].path} in a way that "
            "symbolic tensors do not show"
        )
    flat = [x for x in keras.tree.flatten(outputs) if x is not None]
    if not flat or not all(isinstance(x, keras.KerasTensor) for x in flat):
        raise CannotOpen("it returns something that is no tensor")
    found = _nodes_of(flat, {id(t) for t in inputs})
    for node in found:
        _take_batch_out(node)
    return Opened(inputs, positions, flat, found, structure, outputs)


def _as_called(layer, x):
    """An argument as Keras' `__call__` would pass it on."""
    if not isinstance(x, keras.KerasTensor) or not layer._convert_input_args:
        return x
    return layer.dtype_policy.convert_input(
        x, layer.autocast, layer.input_dtype
    )


def _nodes_of(outputs, inputs) -> list:
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


class _Reads:
    """Variables of the layer's own that are read while it is opened.

    What inner layers read to find their shapes is read in scopes of theirs.
    """

    def __init__(self):
        self.variables = []

    def __enter__(self):
        self._scope = keras.StatelessScope()
        self._scope.__enter__()
        known = self._scope.get_current_value

        def get_current_value(variable):
            if "seed_generator" not in variable.path:
                self.variables.append(variable)
            return known(variable)

        self._scope.get_current_value = get_current_value

    def __exit__(self, *error):
        return self._scope.__exit__(*error)


@contextlib.contextmanager
def _symbolic(layer, anchor):
    """Makes visible what symbolic tensors do not show; see the module."""
    made: dict[int, Any] = {}

    def source(value, dtype=None):
        if id(value) not in made:
            made[id(value)] = (value, Source(value, dtype)(anchor))
        return made[id(value)][1]

    before = {}
    for name, value in list(vars(layer).items()):
        if isinstance(value, keras.Variable):
            dtype = str(value.dtype)
            if "float" in dtype and value._autocast:
                dtype = layer.compute_dtype
            replaced = source(value, dtype)
        elif keras.ops.is_tensor(value) or isinstance(value, np.ndarray):
            if not len(value.shape):
                continue
            replaced = source(value)
        else:
            continue
        before[name] = value
        # Not by setattr: Keras tracks what is assigned to a layer.
        layer.__dict__[name] = replaced
    ops = keras.ops
    originals = {
        name: getattr(ops, name)
        for name in ("convert_to_tensor", "tile", "broadcast_to")
    }
    call = keras.Layer.__call__

    def layer_call(self, *args, **kwargs):
        flat = keras.tree.flatten((args, kwargs))
        if args and not any(isinstance(x, keras.KerasTensor) for x in flat):
            args = keras.tree.map_structure(
                lambda x: source(x) if keras.ops.is_tensor(x) else x, args
            )
        try:
            return call(self, *args, **kwargs)
        except ValueError as error:
            if "returned a non-tensor" not in str(error):
                raise
            # Keras' graphs have no place for None among outputs.
            args, kwargs = keras.tree.map_structure(
                lambda x: _as_called(self, x), (args, kwargs)
            )
            with _symbolic(self, anchor):
                return self.call(*args, **kwargs)

    def convert_to_tensor(x, dtype=None, *args, **kwargs):
        if isinstance(x, keras.KerasTensor):
            return x if dtype is None else ops.cast(x, dtype)
        return originals["convert_to_tensor"](x, dtype, *args, **kwargs)

    def in_rows(x):
        """x for each example of the batch."""
        first = anchor[(slice(None), *[0] * (len(anchor.shape) - 1))]
        zeros = ops.cast(ops.zeros_like(first), x.dtype)
        return x + ops.reshape(zeros, (-1, *[1] * (len(x.shape) - 1)))

    def tile(x, repeats):
        repeats = tuple(np.atleast_1d(repeats)) if _is_plain(repeats) else repeats
        if (
            isinstance(x, keras.KerasTensor)
            and len(repeats) == len(x.shape)
            and repeats[0] == BATCH
            and x.shape[0] == 1
        ):
            x = originals["tile"](x, (1, *map(int, repeats[1:])))
            return in_rows(x)
        return originals["tile"](x, repeats)

    def broadcast_to(x, shape):
        if (
            isinstance(x, keras.KerasTensor)
            and len(shape)
            and shape[0] == BATCH
            and (len(x.shape) < len(shape) or x.shape[0] == 1)
        ):
            return in_rows(originals["broadcast_to"](x, (1, *shape[1:])))
        return originals["broadcast_to"](x, shape)

    try:
        keras.Layer.__call__ = layer_call
        ops.convert_to_tensor = convert_to_tensor
        ops.tile, ops.broadcast_to = tile, broadcast_to
        yield
    finally:
        keras.Layer.__call__ = call
        for name, original in originals.items():
            setattr(ops, name, original)
        layer.__dict__.update(before)


def _is_plain(repeats):
    return all(isinstance(n, int | np.integer) for n in np.ravel(repeats))


def _take_batch_out(node):
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
        raise CannotOpen("it reshapes its batch and another unknown size at once")
    node.operation = type(op)(new)


def _is_batch(value) -> bool:
    is_integer = isinstance(value, int | np.integer)
    return (
        is_integer
        and not isinstance(value, bool)
        and value > 0
        and value % BATCH == 0
    )
