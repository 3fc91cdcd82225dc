"""Recurrent layers: intrinsic sparse structures.

A hidden unit is its columns in all gates of the kernel and the recurrent
kernel, its biases, its row in the recurrent kernel, and all rows that read it
later.

Reference:
    Wen et al., Learning Intrinsic Sparse Structures within Long Short-Term
    Memory, ICLR 2018, figure 2.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tf_ssl.graph.walk import Call
from tf_ssl.structures.rules.base import Rule, Unknown, rule_of, structure_rule
from tf_ssl.structures.units import Axis, Space


class Recurrent(Rule):
    """A layer with a cell of `gates` blocks of columns."""

    is_reader = True
    gates = 1
    candidate = 0  # the block without which the state stays zero

    def cell(self):
        """Where the weights are."""
        return getattr(self.op, "cell", self.op)

    def trace(self, tracer, inputs):
        size = self.op.units
        if inputs[0] is None or inputs[0].axis != -1:
            return Unknown(self.call).trace(tracer, inputs)
        made = tracer.elements.new(
            size, Space(self.op.name, "units", ("out", "in"))
        )
        self.slices(tracer, inputs[0].ids, made)
        for state in inputs[1:]:  # initial states
            if state is None:
                tracer.elements.fix(made, f"{self.op.name} is given a state")
            else:
                tracer.elements.union(made, state.ids)
        return [Axis(-1, made) for _ in self.call.outputs]

    def slices(self, tracer, read, made):
        """Registers the weights."""
        self.made, cell = made, self.cell()
        columns = np.tile(made, self.gates)
        tracer.slice(cell.kernel, "in", read, 0)
        tracer.slice(cell.kernel, "out", columns, 1)
        tracer.slice(cell.recurrent_kernel, "out", columns, 1)
        tracer.slice(cell.recurrent_kernel, "in", made, 0)
        tracer.slice(cell.bias, "out", columns, -1)

    def _silent(self, read, given) -> np.ndarray:
        """Units whose state stays zero: nothing enters it."""
        cell, size = self.cell(), self.op.units
        columns = slice(self.candidate * size, (self.candidate + 1) * size)
        silent = ~(read(cell.kernel)[:, columns] != 0).any(axis=0)
        silent &= ~(read(cell.recurrent_kernel)[:, columns] != 0).any(axis=0)
        if cell.bias is not None:
            biases = np.atleast_2d(read(cell.bias))[:, columns]
            silent &= ~(biases != 0).any(axis=0)
        zero = keras.ops.convert_to_numpy(cell.activation(np.float32([0.0])))
        if zero[0] != 0 or self.op.stateful:
            silent[:] = False
        for state in given:
            silent &= state == 0
        return silent

    def constants(self, read, inputs):
        given = [x for x in inputs[1:] if len(x) == self.op.units]
        values = np.where(self._silent(read, given), 0.0, np.nan)
        return [values for _ in self.call.outputs]

    def live(self, read, outputs, gone) -> np.ndarray:
        """Units that have an influence, also through other units."""
        size = self.op.units
        weights = read(self.cell().recurrent_kernel) != 0
        reads = weights.reshape(size, self.gates, size).any(axis=1)
        np.fill_diagonal(reads, False)
        live = np.any(outputs, axis=0) & ~gone[0]
        while True:
            more = live | (reads[:, live].any(axis=1) & ~gone[0])
            if (more == live).all():
                return live
            live = more

    def needs(self, read, outputs, inputs, gone):
        live = self.live(read, outputs, gone)
        columns = np.tile(live, self.gates)
        kernel = read(self.cell().kernel)[:, columns]
        return [(kernel != 0).any(axis=1), *([live] * (len(inputs) - 1))]

    def inner_dead(self, read, outputs, gone):
        silent = self._silent(read, [])
        return [(self.made, silent | ~self.live(read, outputs, gone))]

    def foldable(self, read, constants, index):
        return (
            ~np.isnan(constants)
            if index == 0
            else np.ones(len(constants), bool)
        )

    def folds(self, read, constants, index):
        if index > 0:
            return []
        cell = self.cell()
        delta = constants @ read(cell.kernel).astype(np.float64)
        if cell.bias is not None and len(cell.bias.shape) == 2:
            delta = np.stack([delta, np.zeros_like(delta)])
        return [(cell.bias, delta)]

    def bias_units(self):
        """The element of each entry of a bias."""
        return np.tile(self.made, self.gates)

    def config(self, keep):
        return {"units": int(keep(self.made).sum())}


@structure_rule(layers.LSTM)
class LSTM(Recurrent):
    """Gates i, f, c, o."""

    gates = 4
    candidate = 2


@structure_rule(layers.GRU)
class GRU(Recurrent):
    """Gates z, r, h, with the reset before or after the product."""

    gates = 3
    candidate = 2


structure_rule(layers.SimpleRNN)(Recurrent)


@structure_rule(layers.Bidirectional)
class Bidirectional(Rule):
    """Two directions, each of its own size.

    Keras' Bidirectional cannot have different sizes: then the two layers, a
    flip and a concatenation stand in for it, each with the mask. Where states
    must pass, all units stay.
    """

    is_reader = True

    def trace(self, tracer, inputs):
        op = self.op
        self.parts = []
        for layer in (op.forward_layer, op.backward_layer):
            rule = rule_of(Call(layer, *_first(self.call)))
            if not isinstance(rule, Recurrent):
                return Unknown(self.call).trace(tracer, inputs)
            self.parts.append(rule)
        plain = len(self.call.inputs) == 1 and not op.return_state
        if not plain or inputs[0] is None:
            return Unknown(self.call).keep_all(
                tracer, inputs, f"{op.name} passes states"
            )
        made = []
        for rule in self.parts:
            (axis,) = rule.trace(tracer, [inputs[0]])
            made.append(axis.ids)
        if op.merge_mode in ("sum", "ave", "mul"):
            tracer.elements.union(*made)
            return [Axis(-1, made[0])]
        if op.merge_mode is None:
            return [Axis(-1, ids) for ids in made]
        return [Axis(-1, np.concatenate(made))]

    def _split(self, values):
        """What belongs to each direction."""
        if self.op.merge_mode == "concat":
            return np.split(values[0], 2)
        return [values[0], values[-1]]

    def constants(self, read, inputs):
        if not hasattr(self, "parts") or not hasattr(self.parts[0], "made"):
            return Unknown(self.call).constants(read, inputs)
        a, b = (rule.constants(read, inputs)[0] for rule in self.parts)
        mode = self.op.merge_mode
        if mode == "concat":
            return [np.concatenate([a, b])]
        if mode is None:
            return [a, b]
        if mode == "mul":
            return [np.where((a == 0) | (b == 0), 0.0, np.nan)]
        return [np.where((a == 0) & (b == 0), 0.0, np.nan)]

    def _each(self, outputs, gone):
        return zip(
            self.parts, self._split(outputs), self._split(gone), strict=True
        )

    def needs(self, read, outputs, inputs, gone):
        if not hasattr(self.parts[0], "made"):
            return [np.ones(len(x), bool) for x in inputs]
        return [
            np.any(
                [
                    rule.needs(read, [wanted], inputs, [away])[0]
                    for rule, wanted, away in self._each(outputs, gone)
                ],
                axis=0,
            )
        ]

    def inner_dead(self, read, outputs, gone):
        if not hasattr(self.parts[0], "made"):
            return []
        return [
            pair
            for rule, wanted, away in self._each(outputs, gone)
            for pair in rule.inner_dead(read, [wanted], [away])
        ]

    def foldable(self, read, constants, index):
        with_bias = all(rule.cell().bias is not None for rule in self.parts)
        return ~np.isnan(constants) if with_bias else constants == 0

    def folds(self, read, constants, index):
        return [
            fold for r in self.parts for fold in r.folds(read, constants, 0)
        ]

    def successor(self, keep):
        op = self.op
        if not hasattr(self.parts[0], "made"):
            return None
        sizes = [int(keep(rule.made).sum()) for rule in self.parts]
        if sizes == [rule.op.units for rule in self.parts]:
            return None
        forward, backward = (
            type(rule.op).from_config({**rule.op.get_config(), "units": size})
            for rule, size in zip(self.parts, sizes, strict=True)
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


@structure_rule(layers.TimeDistributed)
class TimeDistributed(Rule):
    """A layer at each step: that layer's rule, without the axis of time."""

    def __init__(self, call):
        super().__init__(call)
        inner = Call(
            self.op.layer,
            call.inputs,
            call.outputs,
            [(s[0], *s[2:]) for s in call.input_shapes],
            [(s[0], *s[2:]) for s in call.output_shapes],
            call.arguments,
        )
        self.inner = rule_of(inner)
        self.is_reader = self.inner.is_reader
        for name in (
            "trace",
            "constants",
            "needs",
            "inner_dead",
            "foldable",
            "folds",
            "values",
            "crop",
        ):
            setattr(self, name, getattr(self.inner, name))

    def bias_units(self):
        """The element of each entry of a bias."""
        return self.inner.bias_units()

    def config(self, keep):
        changes = self.inner.config(keep)
        if not changes:
            return {}
        config = dict(self.op.get_config()["layer"])
        config.pop("build_config", None)  # of the size before
        return {"layer": {**config, "config": {**config["config"], **changes}}}


def _first(call):
    return (
        call.inputs[:1],
        call.outputs[:1],
        call.input_shapes[:1],
        call.output_shapes[:1],
        call.arguments,
    )
