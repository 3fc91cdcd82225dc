"""What computes with all positions along an axis, or with neighbours."""

from __future__ import annotations

import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import (
    Rule,
    data_axis,
)
from tf_ssl.structures.rules.table import structure_rule

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
            self.passes([a for a in self.inputs[0] if a in own], value=unknown)

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


def unknown(values: np.ndarray) -> np.ndarray:
    """No constant is left."""
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
        return unknown


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
