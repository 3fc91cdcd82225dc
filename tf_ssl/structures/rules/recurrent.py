"""Recurrent layers: intrinsic sparse structures.

A hidden unit is its columns in all gates of the kernel and the recurrent
kernel, its biases, its row in the recurrent kernel, and all rows that read it
later.

Reference:
    Wen et al., Learning Intrinsic Sparse Structures within Long Short-Term
    Memory, ICLR 2018, figure 2.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers

from tf_ssl.graph.copying.live_copy import resized_layer
from tf_ssl.structures.rules.base import (
    Rule,
    Unknown,
    rule_of,
    structure_rule,
)
from tf_ssl.structures.units import Space


class Recurrent(Rule):
    """A layer with a cell of `gates` blocks of columns.

    Attributes:
        axis: Axis of units: -1.
        made: Elements of the units.
    """

    gates = 1
    candidate = 0  # the block without which the state stays zero
    axis = -1
    made = None

    def cell(self):
        """Where the weights are."""
        return getattr(self.op, "cell", self.op)

    @property
    def size(self) -> int:
        """Units."""
        return self.cell().units

    def declare(self):
        self.stays(
            "steps over them", [a for a in self.inputs[0] if a != self.axis]
        )
        if self.axis not in self.inputs[0]:
            n = self.call.input_shapes[0][self.axis]
            ids = self.tracer.elements.new(n, Space(self.name, "fixed"))
            self.tracer.elements.fix(
                ids, f"{self.name} reads an axis of places"
            )
            self.inputs[0] = {**self.inputs[0], self.axis: ids}
        made = self.tracer.elements.new(
            self.size, Space(self.name, "units", ("out", "in"))
        )
        self.slices(self.tracer, self.inputs[0][self.axis], made)
        for state in self.inputs[1:]:  # initial states
            if self.axis not in state:
                self.tracer.elements.fix(made, f"{self.name} is given a state")
            else:
                self.tracer.elements.union(made, state[self.axis])
        for output in self.outputs:
            output[self.axis] = made

    def slices(self, tracer, read, made):
        """Registers the weights."""
        self.made, cell = made, self.cell()
        columns = np.tile(made, self.gates)
        tracer.slice(cell.kernel, "in", read, -2)
        tracer.slice(cell.kernel, "out", columns, -1)
        tracer.slice(cell.recurrent_kernel, "out", columns, -1)
        tracer.slice(cell.recurrent_kernel, "in", made, -2)
        tracer.slice(cell.bias, "out", columns, -1)

    def _any(self, mask):
        """Over taps: `[*taps, in, out]` to `[in, out]`."""
        return mask.any(axis=tuple(range(mask.ndim - 2)))

    def silent(self, read, given) -> np.ndarray:
        """Units whose state stays zero: nothing enters it.

        Args:
            read: Function from a variable to its value.
            given: Constants of the initial states.
        """
        cell, size = self.cell(), self.size
        columns = slice(self.candidate * size, (self.candidate + 1) * size)
        silent = ~self._any(read(cell.kernel) != 0)[:, columns].any(axis=0)
        recurrent = self._any(read(cell.recurrent_kernel) != 0)
        silent &= ~recurrent[:, columns].any(axis=0)
        if cell.bias is not None:
            biases = np.atleast_2d(read(cell.bias))[:, columns]
            silent &= ~(biases != 0).any(axis=0)
        zero = keras.ops.convert_to_numpy(
            cell.activation(keras.ops.zeros((1,)))
        )
        if zero[0] != 0 or getattr(self.op, "stateful", False):
            silent[:] = False
        for state in given:
            silent &= state == 0
        return silent

    def constants(self, read, inputs):
        given = [x[self.axis] for x in inputs[1:] if self.axis in x]
        values = np.where(self.silent(read, given), 0.0, np.nan)
        return [{self.axis: values} for _ in self.call.outputs]

    def reads_itself(self, read) -> np.ndarray:
        """`[read, by]`: which units read which."""
        size = self.size
        weights = self._any(read(self.cell().recurrent_kernel) != 0)
        return weights.reshape(size, self.gates, size).any(axis=1)

    def live(self, read, wanted, gone) -> np.ndarray:
        """Units that have an influence, also through other units."""
        reads = self.reads_itself(read)
        np.fill_diagonal(reads, False)
        stays = ~gone[0][self.axis]
        live = np.any([w[self.axis] for w in wanted], axis=0) & stays
        while True:
            more = live | (reads[:, live].any(axis=1) & stays)
            if (more == live).all():
                return live
            live = more

    def needs(self, read, wanted, inputs, gone):
        live = self.live(read, wanted, gone)
        columns = np.tile(live, self.gates)
        kernel = self._any(read(self.cell().kernel) != 0)[:, columns]
        found = [
            {a: np.ones(len(v), bool) for a, v in one.items()} for one in inputs
        ]
        if self.axis in found[0]:
            found[0][self.axis] = kernel.any(axis=1)
        for one in found[1:]:
            if self.axis in one:
                one[self.axis] = live
        return found

    def inner_dead(self, read, wanted, gone):
        silent = self.silent(read, [])
        return [(self.made, silent | ~self.live(read, wanted, gone))]

    def read_axes(self, index):
        return (self.axis,)

    def foldable(self, read, constants, index):
        values = constants[self.axis]
        if index:
            return {self.axis: np.ones(len(values), bool)}
        if self.cell().bias is None and not self.adds_bias:
            return {self.axis: values == 0}
        return {self.axis: ~np.isnan(values)}

    adds_bias = True

    def folds(self, read, constants, index):
        if index > 0:
            return []
        cell = self.cell()
        kernel = read(cell.kernel).astype(np.float64)
        sums = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
        delta = constants[self.axis] @ sums
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

_CELLS = {
    layers.LSTMCell: LSTM,
    layers.GRUCell: GRU,
    layers.SimpleRNNCell: Recurrent,
}


@structure_rule(layers.RNN)
class RNN(Rule):
    """A layer around one of Keras' cells: the rule of that layer."""

    def __new__(cls, call):
        rule = _CELLS.get(type(call.op.cell))
        if rule is None:
            made = Unknown(call)
            made.reason = (
                f"{call.op.name} has a {type(call.op.cell).__name__}, which "
                "has no rule"
            )
            return made
        made = object.__new__(
            type(f"{rule.__name__}OfCell", (OfCell, rule), {})
        )
        made.__init__(call)
        return made


class OfCell:
    """Sizes of an RNN are in the config of its cell."""

    def config(self, keep):
        config = dict(self.op.get_config()["cell"])
        size = int(keep(self.made).sum())
        config["config"] = {**config["config"], "units": size}
        config.pop("build_config", None)
        return {"cell": config}


@structure_rule(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
class ConvLSTM(Recurrent):
    """Filters of an LSTM that convolves."""

    gates = 4
    candidate = 2

    @property
    def size(self):
        return self.cell().filters

    @property
    def axis(self):
        if self.cell().data_format == "channels_first":
            return 2 - len(self.call.input_shapes[0])
        return -1

    def foldable(self, read, constants, index):
        values = constants[self.axis]
        cell = self.cell()
        exact = cell.padding == "valid" or max(cell.kernel_size) == 1
        if index or exact or not self.exact:
            return super().foldable(read, constants, index)
        return {self.axis: values == 0}

    def config(self, keep):
        return {"filters": int(keep(self.made).sum())}


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
        plain = plain and all(isinstance(x, Recurrent) for x in self.parts)
        self.usable = plain
        if not plain:
            Unknown.keep_all(self, f"{self.name} passes states")
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
        size = getattr(getattr(layer, "cell", layer), "units", None)
        return dataclasses.replace(
            self.call,
            op=layer,
            inputs=self.call.inputs[:1],
            outputs=[dataclasses.replace(made, shape=(*made.shape[:-1], size))],
        )

    def _split(self, given):
        """What belongs to each direction."""
        if self.op.merge_mode == "concat":
            return [{-1: part} for part in np.split(given[0][-1], 2)]
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
        with_bias = all(rule.cell().bias is not None for rule in self.parts)
        values = constants[-1]
        return {-1: ~np.isnan(values) if with_bias else values == 0}

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


@structure_rule(layers.TimeDistributed)
class TimeDistributed(Rule):
    """A layer at each step: that layer's rule, without the axis of time."""

    def __init__(self, call):
        super().__init__(call)
        self.inner = rule_of(
            dataclasses.replace(
                call,
                op=call.op.layer,
                args=call.args[:1],
                kwargs={},
                inputs=[_without_time(t) for t in call.inputs[:1]],
                outputs=[_without_time(t) for t in call.outputs],
            )
        )
        self.adds_bias = self.inner.adds_bias
        for name in (
            "constants",
            "needs",
            "inner_dead",
            "read_axes",
            "foldable",
            "folds",
            "values",
            "crop",
            "bias_units",
        ):
            setattr(self, name, getattr(self.inner, name))

    @property
    def exact(self):
        return self.inner.exact

    @exact.setter
    def exact(self, value):
        self.inner.exact = value

    def trace(self, tracer, inputs):
        time = 1 - len(self.call.input_shapes[0])
        axes = dict(inputs[0])
        if time in axes:
            tracer.elements.fix(axes.pop(time), f"{self.name} steps over them")
        self.inner.call.args = tuple(self.inner.call.inputs)
        self.inputs = [axes]
        self.outputs = self.inner.trace(tracer, [axes])
        return self.outputs

    def config(self, keep):
        changes = self.inner.config(keep)
        config = dict(self.op.get_config()["layer"])
        config.pop("build_config", None)  # of the size before
        return {"layer": {**config, "config": {**config["config"], **changes}}}


def _without_time(tensor):
    return dataclasses.replace(
        tensor, shape=(tensor.shape[0], *tensor.shape[2:])
    )
