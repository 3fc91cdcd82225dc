"""Layers that treat every number alike, and those that join tensors so."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.elementwise import Add, Elementwise
from tf_ssl.structures.rules.kernels.activations import (
    activate,
    before_activation,
    follow_activation,
    mixes,
)
from tf_ssl.structures.rules.table import structure_rule


class Merge(Elementwise):
    """A layer that joins a list of tensors."""

    function = None

    def compute(self, args, kwargs):
        tensors = keras.tree.flatten(args)
        result = tensors[0]
        for other in tensors[1:]:
            result = type(self).function(result, other)
        return self.finish(result, len(tensors))

    def finish(self, result, count):
        """After all were joined."""
        return result


@structure_rule(layers.Add)
class AddLayer(Merge, Add):
    """Sum."""

    function = keras.ops.add


@structure_rule(layers.Subtract)
class SubtractLayer(Merge):
    """Difference."""

    function = keras.ops.subtract


@structure_rule(layers.Average)
class AverageLayer(Merge):
    """Mean."""

    function = keras.ops.add

    def finish(self, result, count):
        return result / count


@structure_rule(layers.Maximum)
class MaximumLayer(Merge):
    """Largest."""

    function = keras.ops.maximum


@structure_rule(layers.Minimum)
class MinimumLayer(Merge):
    """Smallest."""

    function = keras.ops.minimum


@structure_rule(layers.Multiply)
class MultiplyLayer(Merge):
    """Product."""

    function = keras.ops.multiply
    zero_absorbs = True


@structure_rule(
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
)
class Pointwise(Rule):
    """y = f(x), in inference."""

    def declare(self):
        op = self.op
        activation = getattr(op, "activation", None)
        self.passes()
        self._mixes = mixes(activation)
        follow_activation(self, activation)

    def constants(self, read, inputs):
        if self._mixes:
            return [_nowhere(inputs[0])]
        return [{a: self._values(v) for a, v in inputs[0].items()}]

    def needs(self, read, wanted, inputs, gone):
        activation = getattr(self.op, "activation", None)
        return [
            {
                axis: before_activation(self, activation, live)
                for axis, live in wanted[0].items()
            }
        ]

    def _values(self, values):
        op = self.op
        if isinstance(op, layers.Activation):
            return activate(op.activation, values)
        if isinstance(op, layers.ReLU | layers.LeakyReLU | layers.ELU):
            unknown = np.isnan(values)
            known = np.where(unknown, 0, values).astype("float32")
            result = op.call(keras.ops.convert_to_tensor(known))
            result = keras.ops.convert_to_numpy(result).astype(np.float64)
            return np.where(unknown, np.nan, result)
        return values

    def config(self, keep):
        shape = getattr(self.op, "noise_shape", None)
        if shape is None or isinstance(shape, int):
            return {}
        shape = list(shape)
        for axis, ids in self.outputs[0].items():
            if shape[axis] == len(ids) and len(ids) > 1:
                shape[axis] = int(keep(ids).sum())
        return {"noise_shape": tuple(shape)}


@structure_rule(layers.Rescaling)
class Rescaling(Rule):
    """y = scale x + offset, one number for all or one a channel."""

    def declare(self):
        self.passes([-1])
        self.stays(
            "scales each by itself",
            None if max(self._ranks()) > 1 else set(self.inputs[0]) - {-1},
        )
        if max(self._ranks()) == 0:
            self.passes()

    def _ranks(self):
        return np.ndim(self.op.scale), np.ndim(self.op.offset)

    def constants(self, read, inputs):
        if max(self._ranks()) > 1:
            return [_nowhere(inputs[0])]
        scale, offset = (
            np.asarray(x, np.float64) for x in (self.op.scale, self.op.offset)
        )
        return [{a: v * scale + offset for a, v in inputs[0].items()}]

    def config(self, keep):
        if max(self._ranks()) != 1 or -1 not in self.inputs[0]:
            return {}
        stays = keep(self.inputs[0][-1])
        return {
            name: np.asarray(value)[stays].tolist()
            for name, value in (
                ("scale", self.op.scale),
                ("offset", self.op.offset),
            )
            if np.size(value) == len(stays) and np.ndim(value)
        }


def _nowhere(axes):
    return {a: np.full(len(v), np.nan) for a, v in axes.items()}


@structure_rule(layers.Masking)
class Masking(Pointwise):
    """Zeros steps of which all features are the mask's value."""

    def declare(self):
        self.stays("looks at all features of a step")
        self.passes()
        self._mixes = False

    def _values(self, values):
        return np.where(values == 0, 0.0, np.nan)


@structure_rule(layers.PReLU)
class PReLU(Rule):
    """Slopes of their own: they go with the unit."""

    def declare(self):
        self.passes(value=lambda v: np.where(v >= 0, v, np.nan))
        alpha = self.op.alpha
        for axis, ids in self.inputs[0].items():
            # alpha has no axis of the batch
            if -axis <= len(alpha.shape) and alpha.shape[axis] == len(ids):
                self.carries(alpha, axis % len(alpha.shape), axis, "norm")
