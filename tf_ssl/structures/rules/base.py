"""What a rule says of a layer, and the table of rules."""

from __future__ import annotations

import numpy as np

from tf_ssl.structures.rules.declaration import Declaration
from tf_ssl.structures.rules.kernels.activations import is_linear
from tf_ssl.structures.rules.tracer import Tracer
from tf_ssl.structures.units import Axes


class Rule(Declaration):
    """How a layer treats units.

    A subclass says in `declare` what a call reads, makes, scales and passes
    on, along which axes; following units, finding constants and dead units,
    folding and cutting follow from it. Axes are counted from the end, as in
    NumPy: -1 is the last. The default: everything passes unchanged.

    >>> import keras, tf_ssl
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.gamma = self.add_weight((shape[-1],), "ones", name="gamma")
    ...     def call(self, x):
    ...         return x * self.gamma
    >>> @tf_ssl.structure_rule(Scale)
    ... class ScaleRule(tf_ssl.Rule):
    ...     def declare(self):
    ...         self.passes()
    ...         self.scales(self.layer.gamma)

    A rule is made once a call. Where a declaration is not enough, a subclass
    overrides the methods below `declare`; they take and return one dict an
    input or output, from axes to arrays with one entry a position: elements
    (`trace`), constants, the value that is there whatever the input, or NaN
    (`constants`), and what has an influence (`needs`).

    Attributes:
        call: `Call`.
        layer: The layer or operation.
        name: Its name, behind those of the composite layers around it.
        exact: A constant that padding interrupts is none, and what only holds
            nearly is not used.
        adds_bias: Whether a layer without a bias can be given one by its
            config, `use_bias`.
    """

    exact = True
    # Whether a layer without a bias can be given one by its config.
    adds_bias = False

    def trace(self, tracer: Tracer, inputs: list[Axes]) -> list[Axes]:
        """Registers weights; the axes of the outputs."""
        self.tracer, self.inputs = tracer, inputs
        self.outputs: list[Axes] = [{} for _ in self.call.outputs]
        self.declare()
        if type(self).needs is Rule.needs:
            self._check_inputs()
        self.check_sizes()
        return self.outputs

    def constants(self, read, inputs: list[dict]) -> list[dict]:
        """Constants of the outputs.

        Args:
            read: Function from a variable to its value.
            inputs: Constants of the inputs.
        """
        found = [
            {axis: np.full(len(ids), np.nan) for axis, ids in output.items()}
            for output in self.outputs
        ]
        for source, a, b, value in self._passes:
            values = inputs[source].get(a)
            if values is None:
                continue
            for output in found:
                if b in output and len(output[b]) == len(values):
                    output[b] = values if value is None else value(values)
        for product in self.products:
            for axis, values in product.constants(read, inputs).items():
                found[0][axis] = values
        for variable, variable_axis, axis in self._scales:
            scale = _uniform(read(variable), variable_axis)
            for output in found:
                values = output[axis] * scale
                output[axis] = np.where(scale == 0, 0.0, values)
        return found

    def needs(self, read, wanted, inputs, gone) -> list[dict]:
        """Which positions of the inputs have an influence.

        Args:
            read: Function from a variable to its value.
            wanted: Which positions of the outputs have an influence.
            inputs: Constants of the inputs.
            gone: Which positions of the outputs will be removed.
        """
        # What neither passes nor is read by a kernel is needed as it is.
        followed = {(source, a) for source, a, _, _ in self._passes} | {
            (product.source, axis)
            for product in self.products
            for axis in (*product.reads.values(), *product.shares.values())
        }
        found = [
            {
                axis: np.full(len(values), (i, axis) not in followed)
                for axis, values in one.items()
            }
            for i, one in enumerate(inputs)
        ]
        for source, a, b, _ in self._passes:
            need = np.zeros(len(inputs[source][a]), bool)
            for output in wanted:
                if b in output:
                    need |= output[b]
            for variable, variable_axis, axis in self._scales:
                if axis == b:
                    live = _axis_any(read(variable) != 0, variable_axis)
                    need &= live
            found[source][a] |= need
        for product in self.products:
            for axis, need in product.needs(read, wanted, gone).items():
                found[product.source][axis] |= need
        return found

    def read_axes(self, index: int) -> tuple:
        """Axes of input `index` that weights of the layer read."""
        return tuple(
            axis
            for product in self.products
            if product.source == index
            for axis in product.reads.values()
        )

    def reading(self) -> tuple:
        """Which kernel reads which input; it may differ from call to call."""
        return tuple(map(self.read_axes, range(len(self.call.inputs))))

    def foldable(self, read, constants: dict, index: int) -> dict:
        """Where a removed constant can be folded exactly, by read axis."""
        found: dict = {}
        for product in self.products:
            if product.source == index:
                found.update(product.foldable(constants))
        return found

    def folds(self, read, constants: dict, index: int) -> list[tuple]:
        """What removed constants add: [(bias or None, delta)].

        Args:
            read: Function from a variable to its value.
            constants: Of input `index` by read axis; 0 where nothing goes.
            index: Of the input.
        """
        return [
            product.fold(read, constants)
            for product in self.products
            if product.source == index
        ]

    def bias_units(self) -> np.ndarray:
        """The element of each entry of a bias that is to be added."""
        return next(iter(self.products[0].made.values()))

    def shifts(self) -> int | None:
        """The axis of the output to which a bias would be added last.

        None: something that is not linear comes behind it.
        """
        if len(self.products) != 1 or len(self.products[0].made) != 1:
            return None
        (product,) = self.products
        if product.shares or not is_linear(product.activation):
            return None
        return next(iter(product.made))

    def with_bias(self, config: dict) -> dict:
        """Entries of the config of the layer with a bias."""
        return {**config, "use_bias": True}

    def inner_dead(self, read, wanted, gone) -> list[tuple]:
        """Units that the layer itself reads: [(elements, which are dead)].

        Args:
            read: Function from a variable to its value.
            wanted: Which positions of the outputs have an influence.
            gone: Which positions of the outputs will be removed.
        """
        return []

    def successor(self, keep):
        """What stands in for the layer, where another config is not enough.

        It is called as the layer is and has the same `variables`.
        """
        return None

    def config(self, keep) -> dict:
        """Entries of the layer's config that are sizes.

        Args:
            keep: Function from elements to a boolean array: which stay.
        """
        sizes = {}
        for key, axis in self._config_axes.items():
            ids = self.outputs[0].get(axis)
            if ids is not None:
                sizes[key] = int(keep(ids).sum())
        return sizes

    def rearrange(self, keep, args: tuple, kwargs: dict) -> tuple:
        """Arguments of the call of the smaller layer."""
        return args, kwargs

    def crop(self, kernel: np.ndarray) -> tuple | None:
        """How many taps can go at both ends of each axis of a kernel."""
        return None

    def values(self, variable, value: np.ndarray, keep):
        """A variable's new value where slices along axes do not say it.

        Args:
            variable: Of the layer.
            value: Its value.
            keep: Function from elements to a boolean array.

        Returns:
            The new value, or None: along each axis, what is kept.
        """
        return None


def _uniform(value: np.ndarray, axis: int) -> np.ndarray:
    """Values along an axis where they are the same over others, else NaN."""
    rows = np.moveaxis(np.asarray(value, np.float64), axis, 0)
    rows = rows.reshape(len(rows), -1)
    return np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)


def _axis_any(mask: np.ndarray, axis: int) -> np.ndarray:
    rows = np.moveaxis(mask, axis, 0)
    return rows.reshape(len(rows), -1).any(axis=1)


def data_axis(layer, rank: int) -> int:
    """The axis of channels of a layer with a data format, from the end."""
    if getattr(layer, "data_format", None) == "channels_first":
        return 1 - rank
    return -1
