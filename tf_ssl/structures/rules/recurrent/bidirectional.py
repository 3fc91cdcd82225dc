"""Two recurrent layers, of which one reads backwards."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers

from tf_ssl.graph.copying.live_copy import resized_layer
from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.recurrent.recurrent import Recurrent
from tf_ssl.structures.rules.table import Unknown, rule_of, structure_rule


@structure_rule(layers.Bidirectional)
class Bidirectional(Rule):
    """Two directions, each of its own size.

    Keras' Bidirectional cannot have different sizes: then the two layers, a
    flip and a concatenation stand in for it, each with the mask. Where states
    must pass, all units stay.
    """

    def declare(self):
        op = self.op
        self.parts = [
            rule_of(self._half(layer))
            for layer in (op.forward_layer, op.backward_layer)
        ]
        plain = len(self.call.inputs) == 1 and not op.return_state
        plain = plain and all(
            isinstance(x, Recurrent) and x.axis == -1 for x in self.parts
        )
        self.usable = plain
        if not plain:
            self.refuse(f"{self.name} passes states")
            return
        made = []
        for rule in self.parts:
            (axes,) = rule.trace(self.tracer, [self.inputs[0]])
            self.inputs[0] = rule.inputs[0]
            made.append(axes[-1])
        mode = op.merge_mode
        if mode in ("sum", "ave", "mul"):
            self.tracer.elements.union(*made)
            self.outputs[0][-1] = made[0]
        elif mode is None:
            for output, ids in zip(self.outputs, made, strict=True):
                output[-1] = ids
        else:
            self.outputs[0][-1] = np.concatenate(made)

    def _half(self, layer):
        """The call of one direction."""
        made = self.call.outputs[0]
        cell = getattr(layer, "cell", layer)
        size = getattr(cell, "units", None) or getattr(cell, "filters", None)
        return dataclasses.replace(
            self.call,
            op=layer,
            inputs=self.call.inputs[:1],
            outputs=[dataclasses.replace(made, shape=(*made.shape[:-1], size))],
        )

    @property
    def exact(self):
        """That of both directions."""
        return getattr(self, "_exact", True)

    @exact.setter
    def exact(self, value):
        self._exact = value
        for rule in getattr(self, "parts", ()):
            rule.exact = value

    def _split(self, given):
        """What belongs to each direction."""
        if self.op.merge_mode == "concat":
            size = len(self.parts[0].made)
            whole = given[0][-1]
            return [{-1: whole[:size]}, {-1: whole[size:]}]
        return [given[0], given[-1]]

    def constants(self, read, inputs):
        if not self.usable:
            return super().constants(read, inputs)
        a, b = (rule.constants(read, inputs)[0][-1] for rule in self.parts)
        mode = self.op.merge_mode
        if mode == "concat":
            return [{-1: np.concatenate([a, b])}]
        if mode is None:
            return [{-1: a}, {-1: b}]
        zero = (a == 0) | (b == 0) if mode == "mul" else (a == 0) & (b == 0)
        return [{-1: np.where(zero, 0.0, np.nan)}]

    def _each(self, wanted, gone):
        return zip(
            self.parts, self._split(wanted), self._split(gone), strict=True
        )

    def needs(self, read, wanted, inputs, gone):
        if not self.usable:
            return Unknown.needs(self, read, wanted, inputs, gone)
        parts = [
            rule.needs(read, [live], inputs, [away])[0]
            for rule, live, away in self._each(wanted, gone)
        ]
        return [{axis: parts[0][axis] | parts[1][axis] for axis in parts[0]}]

    def inner_dead(self, read, wanted, gone):
        if not self.usable:
            return []
        return [
            pair
            for rule, live, away in self._each(wanted, gone)
            for pair in rule.inner_dead(read, [live], [away])
        ]

    def read_axes(self, index):
        return (-1,) if self.usable else ()

    def foldable(self, read, constants, index):
        folds = constants[-1] == 0
        if all(rule.cell().bias is not None for rule in self.parts):
            folds = np.all(
                [x.foldable(read, constants, 0)[-1] for x in self.parts], axis=0
            )
        return {-1: folds}

    def shifts(self):
        return None

    def folds(self, read, constants, index):
        return [
            fold for r in self.parts for fold in r.folds(read, constants, 0)
        ]

    def successor(self, keep):
        op = self.op
        if not self.usable:
            return None
        sizes = [int(keep(rule.made).sum()) for rule in self.parts]
        read = self.inputs[0][-1]
        if sizes == [rule.size for rule in self.parts] and keep(read).all():
            return None
        forward, backward = (
            resized_layer(rule.op, rule.config(keep)) for rule in self.parts
        )
        if sizes[0] == sizes[1]:
            config = {
                k: v
                for k, v in op.get_config().items()
                if k not in ("layer", "backward_layer")
            }
            return layers.Bidirectional(
                forward, backward_layer=backward, **config
            )
        return TwoDirections(forward, backward, op.merge_mode, op.name)


class TwoDirections:
    """Two recurrent layers in place of a Bidirectional; called like a layer."""

    def __init__(self, forward, backward, merge_mode, name):
        self.forward_layer, self.backward_layer = forward, backward
        self.merge_mode, self.name = merge_mode, name

    def __call__(self, x, **kwargs):
        first, second = (
            self.forward_layer(x, **kwargs),
            self.backward_layer(x, **kwargs),
        )
        if self.backward_layer.return_sequences:
            second = keras.ops.flip(second, axis=1)
        if self.merge_mode is None:
            return [first, second]
        return layers.Concatenate(name=self.name)([first, second])

    @property
    def variables(self):
        """In the order of Bidirectional's."""
        return self.forward_layer.variables + self.backward_layer.variables
