"""Where values come from: variables and arrays, and what binds graphs."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import structure_rule
from tf_ssl.structures.units import Space


@structure_rule("Bind")
class Bind(Rule):
    """Passes a tensor into or out of a nested graph."""


@structure_rule("Rows")
class Rows(Rule):
    """The same for each example: of the batch only its size is read."""

    def declare(self):
        self.passes()
        self.ignores(1)


@structure_rule("Source")
class Source(Rule):
    """A variable or an array that an opened layer held: units on each axis.

    A kernel, which a product sums over one axis of, makes units along another.
    """

    def declare(self):
        value, variable = self.op.value, self.op.variable
        shape = tuple(value.shape)
        is_integer = "int" in keras.backend.standardize_dtype(value.dtype)
        for axis in range(-len(shape), 0):
            # A vector is one number a unit; of larger ones the first axis
            # is that of the batch, places or words, which end fixed.
            if shape[axis] < 2 or is_integer:
                continue
            uses = self.tracer.uses.get(self.call.outputs[0], {})
            is_kernel = variable is not None and "summed" in uses.values()
            makes = is_kernel and uses.get(axis) != "summed"
            name = self.name if variable is None else self._name(variable)
            ids = self.tracer.elements.new(
                shape[axis], Space(name, "units" if makes else "value")
            )
            self.outputs[0][axis] = ids
            if variable is not None:
                role = "norm" if len(shape) == 1 else "out"
                if uses.get(axis) == "summed":
                    role = "in"
                self.tracer.slice(variable, role, ids, axis % len(shape))

    def _name(self, variable):
        """Of the layer that holds the variable, and its own."""
        return "/".join((*self.name.split("/")[:-1], variable.name))

    def constants(self, read, inputs):
        variable = self.op.variable
        value = (
            keras.ops.convert_to_numpy(self.op.value)
            if variable is None
            else read(variable)
        )
        found = {}
        for axis, ids in self.outputs[0].items():
            rows = np.moveaxis(np.asarray(value, np.float64), axis, 0)
            rows = rows.reshape(len(ids), -1)
            if not rows.size:
                continue
            same = (rows == rows[:, :1]).all(axis=1)
            found[axis] = np.where(same, rows[:, 0], np.nan)
        return [found]
