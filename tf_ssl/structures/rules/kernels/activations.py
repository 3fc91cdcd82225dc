"""Activations, functions or layers, of kernels and by themselves."""

from __future__ import annotations

import keras
import numpy as np

# Layers that as activations treat every number alike.
_POINTWISE = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.PReLU,
    keras.layers.Dropout,
    keras.layers.Identity,
)
_mixing: dict[int, tuple] = {}  # id -> (activation, whether it mixes)


def activate(activation, values: np.ndarray, read=None) -> np.ndarray:
    """An activation, or a layer as one, of constants; NaN stays.

    Args:
        activation: Function, layer or None.
        values: Constants; NaN where there is none.
        read: Function from a variable to its value; None: what it holds.

    Returns:
        NaN everywhere of an activation that mixes units.
    """
    if is_linear(activation):
        return values
    if mixes(activation):
        return np.full(np.shape(values), np.nan)
    unknown = np.isnan(values)
    known = keras.ops.convert_to_tensor(np.where(unknown, 0, values), "float32")
    if isinstance(activation, keras.Layer):
        slope = getattr(activation, "alpha", None)
        if slope is not None:  # PReLU's: negative ones meet its slopes
            slope = _units_of(slope, values.shape, read)
            if slope is None:
                return np.where(unknown | (values < 0), np.nan, values)
            return np.where(values < 0, values * slope, values)
        known = known[None]
        result = activation(known)[0]
    else:
        result = activation(known)
    result = keras.ops.convert_to_numpy(result).astype(np.float64)
    return np.where(unknown, np.nan, result.reshape(values.shape))


def _units_of(alpha, shape, read):
    """Slopes of units, if they are the same at all places."""
    value = (read or keras.ops.convert_to_numpy)(alpha)
    if value.shape[-1:] != shape[-1:] or value.size != value.shape[-1]:
        return None
    return value.reshape(-1)


def is_linear(activation) -> bool:
    """Whether an activation does nothing."""
    return activation is None or activation is keras.activations.linear


def mixes(activation) -> bool:
    """Whether numbers have an influence on others through an activation.

    Functions are tried: whether any other result moves with one number. Of
    layers those that are known to do none.
    """
    if is_linear(activation) or isinstance(activation, _POINTWISE):
        return False
    if isinstance(activation, keras.layers.Activation):
        return mixes(activation.activation)
    if isinstance(activation, keras.Layer):
        return True
    if id(activation) not in _mixing:
        _mixing[id(activation)] = activation, _is_seen_to_mix(activation)
    return _mixing[id(activation)][1]


def _is_seen_to_mix(function) -> bool:
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    before = values.astype(np.float32)
    after = before.copy()
    after[0, 0, 0, 0] += 1.0
    try:
        before, after = (
            keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(x)))
            for x in (before, after)
        )
    except Exception:  # whatever the user's function raises
        return True
    if before.shape != values.shape:
        return True
    return not np.array_equal(
        before.ravel()[1:], after.ravel()[1:], equal_nan=True
    )


def follow_activation(rule, activation) -> None:
    """Fixes units that an activation mixes; slopes go with their units.

    Args:
        rule: `Rule`, whose first output the activation makes.
        activation: Function, layer or None.
    """
    is_layer = isinstance(activation, keras.Layer)
    shape = rule.call.output_shapes[0]
    if is_layer and not activation.built:  # Keras waits for numbers
        activation.build(shape)
    alpha = getattr(activation, "alpha", None)
    for axis, ids in rule.outputs[0].items():
        if mixes(activation):
            # Keras' own functions mix along the last axis.
            if axis == -1 or is_layer or not _is_own(activation):
                name = getattr(
                    activation, "__name__", type(activation).__name__
                )
                rule.tracer.elements.fix(
                    ids,
                    f"{rule.name} has the activation {name}",
                    only_if_exact=not is_layer,
                )
        elif isinstance(alpha, keras.Variable):
            # Slopes have no axis of the batch.
            rank = len(alpha.shape)
            if -axis <= rank and alpha.shape[axis] == len(ids):
                rule.tracer.slice(alpha, "norm", ids, axis % rank)


def before_activation(rule, activation, wanted: np.ndarray) -> np.ndarray:
    """What of an activation's input has an influence.

    Args:
        rule: `Rule`.
        activation: Function, layer or None.
        wanted: Which positions of its results have one.
    """
    if rule.exact and mixes(activation):
        return np.full(len(wanted), wanted.any())
    return wanted


def _is_own(activation) -> bool:
    return getattr(activation, "__module__", "").startswith("keras.src")
