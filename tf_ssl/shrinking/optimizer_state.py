"""An optimizer for a smaller model, with the state of what stays."""

from __future__ import annotations

import logging

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.shrinking.optimizer_twins import OptimizerTwins

_OF_THE_MODEL = ("_trainable_variables", "_variables", "_tracker")
_LIBRARIES = ("builtins", "collections", "keras", "numpy", "tensorflow")


def optimizer_for(optimizer, small, pairs, cut, structures=None):
    """A copy of an optimizer for a smaller model.

    It has the settings of the optimizer and those of wrapped ones, learning
    rates set by hand and schedules included. Of moments, averages of weights
    (EMA), accumulated gradients and whatever else it keeps for a variable it
    has what stays; steps, loss scales and other numbers are as they were.

    It trains those trainable variables of the smaller model whose predecessors
    the optimizer trains, and those that have none, such as biases that took up
    constants: their state is that of the first step.

    Departure: factored moments (Adafactor) are means over rows and columns.
    They are cut as they are; means over what stays would be others.

    Args:
        optimizer: Keras optimizer, also one around others
            (`inner_optimizer`); it is not changed.
        small: The smaller model.
        pairs: List of (old variable, new variable).
        cut: Function of an old variable and an array of its shape: what stays
            of that, of the new variable's shape.
        structures: For `tf_ssl.GroupLassoOptimizer`: of the smaller model;
            None: those found whose names the optimizer's have. Strengths are
            those of the same names.

    Returns:
        An optimizer of the same class; built if the optimizer is.

    Raises:
        ValueError: It cannot be made again from its config.
    """
    pairs = list(pairs)
    old_of = {id(new): old for old, new in pairs}
    new = OptimizerTwins(small, pairs, structures).of(optimizer)
    if not optimizer.built:
        return new
    known = {id(v) for v in optimizer._trainable_variables}
    variables = [
        v
        for v in small.trainable_variables
        if id(v) not in old_of or id(old_of[id(v)]) in known
    ]
    new.build(variables)
    of_model = {id(v) for v in small.variables}
    _State(old_of, cut, of_model).copy(optimizer, new)
    return new


class _State:
    """Gives an optimizer's variables what stays of another's."""

    def __init__(self, old_of, cut, seen: set):
        self._old_of = old_of
        self._cut = cut
        self._seen = seen

    def copy(self, old, new):
        """From one optimizer to its twin, and from what they wrap."""
        if not (old.built and new.built):  # for variables that are all gone
            return
        positions = {id(v): i for i, v in enumerate(old._trainable_variables)}
        predecessors = [
            self._old_of.get(id(v)) for v in new._trainable_variables
        ]
        self._positions = [
            (old_variable, positions.get(id(old_variable)))
            for old_variable in predecessors
        ]
        self._num_old = len(positions)
        self._attributes(old, new)

    def _attributes(self, old, new):
        for name, value in vars(old).items():
            if name not in _OF_THE_MODEL and name in vars(new):
                self._value(value, vars(new)[name])

    def _value(self, old, new):
        if isinstance(new, keras.optimizers.Optimizer):
            if id(new) not in self._seen:
                self._seen.add(id(new))
                _State(self._old_of, self._cut, self._seen).copy(old, new)
        elif isinstance(new, keras.Variable | tf.Variable):
            if id(new) not in self._seen and old.shape == new.shape:
                new.assign(old)
        elif isinstance(new, list) and self._is_by_variable(old, new):
            for slot, (variable, position) in zip(
                new, self._positions, strict=True
            ):
                if slot is not None and position is not None:
                    self._slot(variable, old[position], slot)
        elif isinstance(new, list) and len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                self._value(one, other)
        elif type(new).__module__.split(".")[0] not in _LIBRARIES:
            if hasattr(new, "__dict__") and type(old) is type(new):
                if id(new) not in self._seen:
                    self._seen.add(id(new))
                    self._attributes(old, new)

    def _is_by_variable(self, old, new) -> bool:
        return (
            len(old) == self._num_old
            and len(new) == len(self._positions)
            and all(
                x is None or isinstance(x, keras.Variable | tf.Variable)
                for x in (*old, *new)
            )
        )

    def _slot(self, variable, old, new):
        if old is None:
            return
        value = keras.ops.convert_to_numpy(old)
        shape = tuple(variable.shape)
        if value.shape == ():
            new.assign(value)
        elif value.shape == shape:
            new.assign(self._cut(variable, value))
        elif value.shape == shape[:-1]:  # means over the last axis
            wide = np.broadcast_to(value[..., None], shape)
            new.assign(self._cut(variable, wide)[..., 0])
        elif value.shape == (*shape[:-2], *shape[-1:]):  # over the one before
            wide = np.broadcast_to(value[..., None, :], shape)
            new.assign(self._cut(variable, wide)[..., 0, :])
        else:
            logging.getLogger(__name__).warning(
                "The optimizer keeps an array of shape %s for the variable %s "
                "of shape %s: that of the smaller model starts anew.",
                value.shape,
                variable.path,
                shape,
            )
