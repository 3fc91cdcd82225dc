"""What values hold, and which of them a copy may share."""

from __future__ import annotations

import functools
import inspect
import types

import keras
import numpy as np
import tensorflow as tf

# The base class whose pickling saves a model; Keras does not export it.
from keras.src.saving.keras_saveable import KerasSaveable

STATE = (
    keras.Variable,
    tf.Variable,
    keras.Layer,
    keras.random.SeedGenerator,
    keras.metrics.Metric,
)
TRACKABLE = tf.__internal__.tracking.Trackable
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
    tf.distribute.Strategy,
)


def is_shared(value) -> bool:
    """Whether a copy holds the same object."""
    if isinstance(value, keras.dtype_policies.DTypePolicyMap):
        return False  # quantizing a layer writes to it
    return isinstance(value, _SHARED) or tf.is_tensor(value)


def parts(value) -> list:
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
            *(cell.cell_contents for cell in cells if not is_empty(cell)),
            *(value.__defaults__ or ()),
            *(value.__kwdefaults__ or {}).values(),
        ]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, tf.types.experimental.PolymorphicFunction):
        return [value.python_function]
    if is_plain(value):
        return list(getattr(value, "__dict__", {}).values())
    return []


def is_plain(value) -> bool:
    """Whether a value is no more than its attributes."""
    kind = type(value)
    if isinstance(value, KerasSaveable | tf.Module):
        return True
    if isinstance(value, TRACKABLE):
        return False  # lookup tables, loaded models
    return (
        (hasattr(value, "__dict__") or hasattr(kind, "__slots__"))
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and not hasattr(kind, "__deepcopy__")
    )


def is_empty(cell) -> bool:
    """Whether a variable of a closure has no value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
