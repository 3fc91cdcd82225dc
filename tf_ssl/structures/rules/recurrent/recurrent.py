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

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import Unknown, structure_rule
from tf_ssl.structures.units import Space


def states_of(layer) -> list:
    """Variables in which a stateful recurrent layer keeps its states."""
    if not getattr(layer, "stateful", False):
        return []
    return [
        state
        for state in keras.tree.flatten(getattr(layer, "states", None))
        if isinstance(state, keras.Variable)
    ]


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
    adds_bias = True
    _given = ()  # constants of the initial states

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
        self.follow(self.axis)
        made = self.tracer.elements.new(
            self.size, Space(self.name, "units", ("out", "in"))
        )
        self.slices(self.tracer, self.inputs[0][self.axis], made)
        for state in states_of(self.op):  # kept between batches
            self.tracer.slice(state, "stat", made, self.axis % len(state.shape))
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
        self._given = given = [
            x.get(self.axis, np.full(self.size, np.nan)) for x in inputs[1:]
        ]
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
        silent = self.silent(read, self._given)
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

    def shifts(self):
        return None  # what it adds comes back at the next step

    def folds(self, read, constants, index):
        if index > 0:
            return []
        cell = self.cell()
        kernel = read(cell.kernel).astype(np.float64)
        sums = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
        delta = constants[self.axis] @ sums
        # Two biases, of what comes in and of the state.
        if getattr(cell, "reset_after", False):
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

    def with_bias(self, config):
        cell = dict(config["cell"])
        cell["config"] = {**cell["config"], "use_bias": True}
        return {**config, "cell": cell}


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
