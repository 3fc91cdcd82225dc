"""What computes with all positions along an axis, or with neighbours."""

from __future__ import annotations

import math

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import (
    Rule,
    data_axis,
)
from tf_ssl.structures.rules.table import Unknown, structure_rule

_SPATIAL = [
    getattr(layers, f"{name}{n}D")
    for name in ("MaxPooling", "AveragePooling", "UpSampling")
    for n in (1, 2, 3)
]
_GLOBAL = [
    getattr(layers, f"Global{name}Pooling{n}D")
    for name in ("Max", "Average")
    for n in (1, 2, 3)
]
_ADAPTIVE = [
    getattr(layers, f"Adaptive{name}Pooling{n}D")
    for name in ("Max", "Average")
    for n in (1, 2, 3)
    if hasattr(layers, f"Adaptive{name}Pooling{n}D")
]


class Spatial(Rule):
    """Works on places, each channel by itself: a constant stays what it is."""

    def declare(self):
        rank = len(self.call.input_shapes[0])
        axis = data_axis(self.op, rank)
        out_rank = len(self.call.output_shapes[0])
        others = [a for a in self.inputs[0] if a != axis]
        self.stays("works on places", others)
        self.passes(
            {axis: -1 if out_rank < rank else axis}, value=self.of_constants
        )

    def of_constants(self, values):
        """Borders that are filled are something else."""
        if not getattr(self.op, "pad_to_aspect_ratio", False):
            return values
        return np.where(values == self.op.fill_value, values, np.nan)


structure_rule(*_SPATIAL, *_GLOBAL, *_ADAPTIVE)(Spatial)
structure_rule(layers.Resizing, layers.CenterCrop, layers.RandomCrop)(Spatial)
structure_rule(
    "MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool", "Resize"
)(Spatial)


class Along(Rule):
    """Works along axes of its own; units along others pass."""

    reason = "mixes all of them"
    only_if_exact = False
    # What becomes of constants along other axes.
    value = staticmethod(lambda v: np.full(len(v), np.nan))

    def own_axes(self) -> set:
        """From the end."""
        rank = len(self.call.input_shapes[0])
        axis = getattr(self.op, "axis", getattr(self.op, "axes", -1))
        if axis is None:
            return set(range(-rank, 0))
        return {int(a) % rank - rank for a in np.atleast_1d(axis)}

    def declare(self):
        own = self.own_axes()
        self.stays(self.reason, own, exact=self.only_if_exact)
        self.keep_others()
        self.passes(
            [a for a in self.inputs[0] if a not in own], value=self.value
        )
        if self.only_if_exact:
            self.passes([a for a in self.inputs[0] if a in own], value=_unknown)

    def keep_others(self):
        """Inputs but the first, such as weights, are read as they are."""
        for i in range(1, len(self.inputs)):
            self.stays("reads them", source=i)

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if not self.only_if_exact or self.exact:
            for axis in self.own_axes():
                if axis in found[0]:
                    found[0][axis][:] = True
        return found


def _unknown(values):
    return np.full(len(values), np.nan)


@structure_rule(layers.Softmax, "Softmax", "LogSoftmax", "Sparsemax")
class Softmax(Along):
    """Every unit has an influence on every other."""

    reason = "mixes all units of an example"
    only_if_exact = True


@structure_rule(
    layers.UnitNormalization,
    "Cumsum",
    "Cumprod",
    "Sort",
    "Argsort",
    "Normalize",
    "Glu",
    "TopK",
)
class MixesAlong(Along):
    """Positions along its axis have an influence on each other."""


class Reduces(Along):
    """One number for all positions along its axes."""

    reason = "reduces over them"

    def declare(self):
        own = self.own_axes()
        self.stays(self.reason, own)
        self.keep_others()
        rank = len(self.call.input_shapes[0])
        keeps = len(self.call.output_shapes[0]) == rank
        self.passes(
            {
                a: a if keeps else a + sum(b > a for b in own)
                for a in self.inputs[0]
                if a not in own
            },
            value=self.value,
        )


@structure_rule("Mean", "Max", "Min", "Amax", "Amin", "Median")
class Mean(Reduces):
    """Of a constant it is the constant."""

    @property
    def value(self):
        """A number that the reduction begins with counts as well."""
        if getattr(self.op, "initial", None) is None:
            return None
        return _unknown


@structure_rule(
    "Sum",
    "Var",
    "Std",
    "CountNonzero",
    "Nansum",
    "Norm",
    "Prod",
    "Any",
    "All",
    "Average",
    "Ptp",
)
class Sum(Reduces):
    """Of zeros it is zero."""

    value = staticmethod(lambda v: np.where(v == 0, 0.0, np.nan))


@structure_rule("Logsumexp", "Argmax", "Argmin")
class Reduction(Reduces):
    """Of a constant it depends on how many there are."""


@structure_rule(layers.BatchNormalization)
class BatchNormalization(Rule):
    """In inference a scale and a shift of each unit."""

    def declare(self):
        op, rank = self.op, len(self.call.input_shapes[0])
        axis = self.axis = op.axis % rank - rank
        self.stays(
            "normalizes another axis", [a for a in self.inputs[0] if a != axis]
        )
        self.passes([axis])
        for variable, role in (
            (op.gamma, "norm"),
            (op.beta, "norm"),
            (op.moving_mean, "stat"),
            (op.moving_variance, "stat"),
        ):
            self.carries(variable, 0, axis, role)

    def constants(self, read, inputs):
        op = self.op
        if self.axis not in inputs[0]:
            return [{}]
        scale = 1.0 / np.sqrt(
            read(op.moving_variance).astype(np.float64) + op.epsilon
        )
        if op.gamma is not None:
            scale = scale * read(op.gamma)
        # A scale of 0 makes anything constant.
        centred = np.where(
            scale == 0, 0.0, inputs[0][self.axis] - read(op.moving_mean)
        )
        shift = 0.0 if op.beta is None else read(op.beta)
        return [{self.axis: centred * scale + shift}]

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        if self.op.gamma is not None and self.axis in found[0]:
            found[0][self.axis] &= read(self.op.gamma) != 0
        return found


@structure_rule(layers.LayerNormalization, layers.GroupNormalization)
class MixingNormalization(Along):
    """Removing a unit, even a zero one, moves the others."""

    reason = "mixes all units of an example"
    only_if_exact = True

    def own_axes(self):
        rank = len(self.call.input_shapes[0])
        return {int(a) % rank - rank for a in np.atleast_1d(self.op.axis)}

    def declare(self):
        op = self.op
        own = self.own_axes()
        groups = getattr(op, "groups", 1)
        size = self.call.input_shapes[0][max(own)]
        can_shrink = len(own) == 1 and groups in (1, -1, size)
        self.stays(self.reason, own, exact=can_shrink)
        if not isinstance(op, layers.LayerNormalization):
            self.stays(
                "mixes places", [a for a in self.inputs[0] if a not in own]
            )
        self.passes(own, value=_unknown)
        self.passes([a for a in self.inputs[0] if a not in own], value=_unknown)
        for axis in own if len(own) == 1 else ():
            for variable in (op.gamma, op.beta):
                if variable is not None:
                    self.carries(variable, 0, axis, "norm")

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        op = self.op
        if (
            not self.exact
            and op.gamma is not None
            and len(self.own_axes()) == 1
        ):
            (axis,) = self.own_axes()
            if axis in found[0]:
                beta = 0.0 if op.beta is None else read(op.beta)
                found[0][axis] = np.where(read(op.gamma) == 0, beta, np.nan)
        return found

    def config(self, keep):
        groups = getattr(self.op, "groups", None)
        (axis, *_) = self.own_axes()
        ids = self.outputs[0].get(axis)
        if groups in (None, 1, -1) or ids is None:
            return {}
        return {"groups": int(keep(ids).sum())}


@structure_rule(layers.RMSNormalization)
class RMSNormalization(Along):
    """y = x gamma / sqrt(mean(x^2) + epsilon): the mean is over all units.

    With C' of C units left, the others zero, the mean grows by C / C':
    gamma sqrt(C / C') and epsilon C / C' give the same.
    """

    def own_axes(self):
        rank = len(self.call.input_shapes[0])
        return {int(a) % rank - rank for a in np.atleast_1d(self.op.axis)}

    def declare(self):
        own = self.own_axes()
        others = [a for a in self.inputs[0] if a not in own]
        self.passes(others, value=lambda v: np.where(v == 0, 0.0, np.nan))
        if len(own) > 1 or self.op.scale is None:
            self.stays("mixes all units of an example", own)
            return
        (self.axis,) = own
        self.passes([self.axis])
        self.carries(self.op.scale, 0, self.axis, "norm")
        self.ids = self.inputs[0].get(self.axis)

    def constants(self, read, inputs):
        found = super().constants(read, inputs)
        if getattr(self, "ids", None) is not None:
            zero = (inputs[0][self.axis] == 0) | (read(self.op.scale) == 0)
            found[0][self.axis] = np.where(zero, 0.0, np.nan)
        return found

    def needs(self, read, wanted, inputs, gone):
        found = super().needs(read, wanted, inputs, gone)
        for axis in self.own_axes():
            if axis in found[0]:
                found[0][axis][:] = True  # all are in the mean
        return found

    def read_axes(self, index):
        return (self.axis,) if getattr(self, "ids", None) is not None else ()

    def foldable(self, read, constants, index):
        return {self.axis: constants[self.axis] == 0}

    def folds(self, read, constants, index):
        return []

    def config(self, keep):
        if getattr(self, "ids", None) is None:
            return {}
        kept = keep(self.ids)
        return {"epsilon": self.op.epsilon * len(kept) / max(1, kept.sum())}

    def values(self, variable, value, keep):
        if getattr(self, "ids", None) is None:
            return None
        kept = keep(self.ids)
        return value[kept] * math.sqrt(len(kept) / max(1, kept.sum()))


@structure_rule(layers.Normalization)
class Normalization(Unknown):
    """Of the input, with numbers of its own."""

    def declare(self):
        self.refuse(f"{self.name} has numbers for each feature")
