"""Deep copies of lists, functions and objects."""

from __future__ import annotations

import collections
import copy
import functools
import types

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.graph.copying.reach import (
    STATE,
    TRACKABLE,
    is_empty,
    is_plain,
    is_shared,
    parts,
)


class ValueCopier:
    """Copies what is neither a variable nor a layer.

    Args:
        memo: See `Copier`.
    """

    def __init__(self, memo: dict | None = None):
        self.memo = {} if memo is None else memo

    def __call__(self, value):
        """The copy of a value."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        if is_shared(value):
            return value
        if isinstance(value, np.ndarray):
            return self._keep(value, value.copy())
        if isinstance(value, tf.random.Generator):
            state, algorithm = value.state.read_value(), value.algorithm
            new = tf.random.Generator.from_state(state, algorithm)
            return self._keep(value, new)
        if isinstance(value, TRACKABLE) and isinstance(
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

    def _keep(self, old, new):
        self.memo[id(old)] = new
        self.memo.setdefault(id(self.memo), []).append(old)
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
        new = self._keep(old, blank(type(old)))
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
            if not is_empty(before):
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
        if not is_plain(old):
            try:
                return self._keep(old, copy.deepcopy(old, self.memo))
            except Exception:  # whatever a class raises that takes no copies
                return self._keep(old, old)
        try:
            new = blank(type(old))
        except TypeError:
            return self._keep(old, old)
        self._keep(old, new)
        self._attributes(old, new)
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
        if isinstance(value, STATE):
            return True
        if self.memo.get(id(value), value) is not value:
            return True
        if depth == 0 or is_shared(value):
            return False
        return any(self._holds_state(x, depth - 1) for x in parts(value))


def blank(kind):
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
