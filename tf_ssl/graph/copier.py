"""Deep copies of layers with all that they hold, without their configs."""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import types

import keras
import numpy as np
import tensorflow as tf

# What Keras does not export: where layers note what they hold, the base class
# whose pickling saves a model, and the name under which a graph knows a node.
from keras.src.ops.function import make_node_key
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.tracking import Tracker

_STATE = (
    keras.Variable,
    tf.Variable,
    keras.Layer,
    keras.random.SeedGenerator,
    keras.metrics.Metric,
)
_TRACKABLE = tf.__internal__.tracking.Trackable
# Never written to by what reads them, or not to be had twice.
_SHARED = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.generic,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    inspect.Signature,
    keras.KerasTensor,
    keras.dtype_policies.DTypePolicy,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    tf.DType,
    tf.TensorShape,
    tf.TypeSpec,
)
# Of a model: what compile() and fit() leave. The copy is not compiled.
_COMPILED = {
    "compiled": False,
    "loss": None,
    "train_function": None,
    "test_function": None,
    "predict_function": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_loss_tracker": None,
}
_FITTED = (
    "history",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
)
# Of one call, or of the graph that a layer is in.
_OF_CALLS = (
    "_inbound_nodes",
    "_outbound_nodes",
    "_losses",
    "_losses_override",
    "_loss_ids",
)
_DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
_DEPENDENCY_NAMES = "_self_unconditional_dependency_names"


class Copier:
    """Copies values; what was copied once is the same copy from then on.

    Variables, layers, metrics, seed generators and whatever holds them are
    copied; functions are where they reach such a thing through a closure, a
    default or `self`. Shared by reference are tensors, initializers, lookup
    tables, optimizers, loaded SavedModels, and what cannot be copied.

    Args:
        memo: id(old) -> new, as that of `copy.deepcopy`: `memo[id(memo)]` keeps
            the old ones alive. What is in it is not copied again.
    """

    def __init__(self, memo: dict | None = None):
        self.memo = {} if memo is None else memo
        self._trackers: list[Tracker] = []

    def __call__(self, value):
        """The copy of a value."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, tf.Variable):
            return self._tf_variable(value)
        if isinstance(value, keras.Operation):
            return self._operation(value)
        if isinstance(value, _SHARED) or tf.is_tensor(value):
            return value
        if isinstance(value, np.ndarray):
            return self._keep(value, value.copy())
        if isinstance(value, _TRACKABLE) and isinstance(
            value, list | dict | tuple
        ):
            return self._wrapped(value)
        if isinstance(value, list | dict | set):
            return self._collection(value)
        if isinstance(value, tuple | frozenset):
            return self._keep(value, _like(value, map(self, value)))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._method(value)
        if isinstance(value, functools.partial):
            return self._partial(value)
        if isinstance(value, tf.types.experimental.PolymorphicFunction):
            return self._traced(value)
        return self._object(value)

    def finish(self):
        """Notes in trackers what they now hold; call it after the last copy."""
        for tracker in self._trackers:
            tracker.stored_ids = {
                name: {id(x) for x in store}
                for name, (_, store) in tracker.config.items()
            }
        self._trackers.clear()

    def _keep(self, old, new):
        self.memo[id(old)] = new
        self.memo.setdefault(id(self.memo), []).append(old)
        return new

    def _variable(self, old):
        new = self._keep(old, _blank(type(old)))
        for name, value in vars(old).items():
            vars(new)[name] = self(value)
        return new

    def _tf_variable(self, old):
        with tf.init_scope():
            new = tf.Variable(
                old.read_value(),
                trainable=old.trainable,
                name=old.name.split(":")[0],
                dtype=old.dtype,
                shape=old.shape,
                synchronization=old.synchronization,
                aggregation=old.aggregation,
            )
        return self._keep(old, new)

    def _operation(self, old):
        if isinstance(old, keras.layers.TFSMLayer):
            # The loaded functions read the variables that they came with.
            for variable in old.variables:
                self._keep(variable, variable)
        new = self._keep(old, _blank(type(old)))
        attributes = vars(new)
        before = {
            k: v
            for k, v in vars(old).items()
            if k not in ("build", "quantize", *_OF_CALLS)
        }
        for name in set(attributes) - set(before) - {"build", "quantize"}:
            del attributes[name]
        for name in _OF_CALLS:
            if name in vars(old):
                attributes[name] = set() if name == "_loss_ids" else []
        gone = set(_OF_CALLS)
        if isinstance(old, keras.Model):
            gone.update(_FITTED, _COMPILED)
            for name in _FITTED:
                before.pop(name, None)
            before.update({k: v for k, v in _COMPILED.items() if k in before})
        _forget_dependencies(before, gone)
        if "_tracker" in before:
            attributes["_tracker"] = self(before["_tracker"])
        if isinstance(old, keras.layers.InputLayer):
            self._node(old._inbound_nodes[0])
        if hasattr(old, "_nodes_by_depth"):
            before["_nodes"] = self._graph(old)
        for name, value in before.items():
            attributes[name] = self(value)
        return new

    def _graph(self, function):
        """Copies the nodes of a graph of layers; returns their keys."""
        keys = set()
        # Inputs first: no copy has to look back along the graph.
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                new = self._node(node)
                position = new.operation._inbound_nodes.index(new)
                keys.add(make_node_key(new.operation, position))
        return keys

    def _node(self, old):
        operation = self(old.operation)
        if id(old) in self.memo:  # that of an input layer
            return self.memo[id(old)]
        args, kwargs = old.arguments.convert(self)
        outputs = [self._keras_tensor(x) for x in old.outputs]
        return self._keep(
            old,
            type(old)(
                operation=operation,
                call_args=args,
                call_kwargs=kwargs,
                outputs=outputs,
            ),
        )

    def _keras_tensor(self, old):
        new = self._keep(old, copy.copy(old))
        vars(new).pop("_keras_history", None)
        if "_keras_mask" in vars(new):
            vars(new)["_keras_mask"] = self(old._keras_mask)
        return new

    def _wrapped(self, old):
        """A collection that TensorFlow tracks."""
        wrap = tf.__internal__.tracking.wrap
        if isinstance(old, tuple):
            return self._keep(old, wrap(self(old.__wrapped__)))
        if isinstance(old, list):
            new = self._keep(old, wrap([]))
            new.extend(map(self, old))
        else:
            new = self._keep(old, wrap(type(old.__wrapped__)()))
            new.update({self(k): self(v) for k, v in old.items()})
        return new

    def _collection(self, old):
        new = self._keep(old, _blank(type(old)))
        if isinstance(old, list):
            list.extend(new, map(self, old))
        elif isinstance(old, set):
            set.update(new, map(self, old))
        else:
            kind = (
                collections.OrderedDict
                if isinstance(old, collections.OrderedDict)
                else dict
            )
            for key, value in kind.items(old):
                kind.__setitem__(new, self(key), self(value))
        if isinstance(old, collections.defaultdict):
            new.default_factory = self(old.default_factory)
        self._attributes(old, new)
        return new

    def _function(self, old):
        if not self._holds_state(old):
            return old
        cells = [types.CellType() for _ in old.__closure__ or ()]
        new = types.FunctionType(
            old.__code__, old.__globals__, old.__name__, None, tuple(cells)
        )
        self._keep(old, new)
        for cell, before in zip(cells, old.__closure__ or (), strict=True):
            if not _is_empty(before):
                cell.cell_contents = self(before.cell_contents)
        new.__defaults__ = self(old.__defaults__)
        new.__kwdefaults__ = self(old.__kwdefaults__)
        for name in ("__module__", "__qualname__", "__doc__"):
            setattr(new, name, getattr(old, name))
        new.__annotations__ = old.__annotations__
        self._attributes(old, new)
        return new

    def _method(self, old):
        owner = self(old.__self__)
        if owner is old.__self__:
            return old
        return self._keep(old, types.MethodType(self(old.__func__), owner))

    def _partial(self, old):
        if not self._holds_state(old):
            return old
        parts = self((old.func, old.args, old.keywords))
        return self._keep(old, type(old)(parts[0], *parts[1], **parts[2]))

    def _traced(self, old):
        function = self(old.python_function)
        if function is old.python_function or not hasattr(old, "_clone"):
            return old
        return self._keep(old, old._clone(function))

    def _object(self, old):
        if not _is_plain(old):
            try:
                return self._keep(old, copy.deepcopy(old, self.memo))
            except Exception:  # whatever a class raises that takes no copies
                return self._keep(old, old)
        try:
            new = _blank(type(old))
        except TypeError:
            return self._keep(old, old)
        self._keep(old, new)
        self._attributes(old, new)
        if isinstance(old, Tracker):
            self._trackers.append(new)
        return new

    def _attributes(self, old, new):
        for kind in type(old).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name.startswith("__") and not name.endswith("__"):
                    name = f"_{kind.__name__.lstrip('_')}{name}"
                if name not in ("__dict__", "__weakref__") and hasattr(
                    old, name
                ):
                    object.__setattr__(new, name, self(getattr(old, name)))
        for name, value in getattr(old, "__dict__", {}).items():
            vars(new)[name] = self(value)

    def _holds_state(self, value, depth: int = 4) -> bool:
        """Whether a function's copy has to reach other things than it does."""
        if isinstance(value, _STATE):
            return True
        if self.memo.get(id(value), value) is not value:
            return True
        if depth == 0 or isinstance(value, _SHARED) or tf.is_tensor(value):
            return False
        return any(self._holds_state(x, depth - 1) for x in _parts(value))


def _parts(value) -> list:
    """What a value holds or, as a function, reaches."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        return [
            *(cell.cell_contents for cell in cells if not _is_empty(cell)),
            *(value.__defaults__ or ()),
            *(value.__kwdefaults__ or {}).values(),
        ]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, tf.types.experimental.PolymorphicFunction):
        return [value.python_function]
    if _is_plain(value):
        return list(getattr(value, "__dict__", {}).values())
    return []


def _is_plain(value) -> bool:
    """Whether a value is no more than its attributes."""
    kind = type(value)
    if isinstance(value, KerasSaveable | tf.Module):
        return True
    if isinstance(value, _TRACKABLE):
        return False  # lookup tables, loaded models
    return (
        (hasattr(value, "__dict__") or hasattr(kind, "__slots__"))
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and not hasattr(kind, "__deepcopy__")
    )


def _is_empty(cell) -> bool:
    try:
        cell.cell_contents
    except ValueError:
        return True
    return False


def _blank(kind):
    """An instance without attributes of its own."""
    try:
        return kind.__new__(kind)
    except TypeError:
        base = keras.Operation if issubclass(kind, keras.Operation) else object
        return base.__new__(kind)


def _like(value, items):
    """A tuple or frozenset of the same class."""
    if hasattr(value, "_fields"):
        return type(value)(*items)
    return type(value)(items)


def _forget_dependencies(attributes: dict, gone: set):
    """Less what TensorFlow would save of attributes that are gone."""
    if _DEPENDENCIES in attributes:
        attributes[_DEPENDENCIES] = [
            x for x in attributes[_DEPENDENCIES] if x.name not in gone
        ]
        attributes[_DEPENDENCY_NAMES] = {
            k: v
            for k, v in attributes[_DEPENDENCY_NAMES].items()
            if k not in gone
        }
