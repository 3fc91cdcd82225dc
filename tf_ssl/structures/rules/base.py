"""What a rule says of a layer, and the table of rules."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import Call, path_of
from tf_ssl.structures.rules.kernels.activations import is_linear
from tf_ssl.structures.rules.kernels.product import Product
from tf_ssl.structures.rules.tracer import Tracer
from tf_ssl.structures.units import Axes, Space


class Rule:
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

    def __init__(self, call: Call):
        self.call = call
        self.layer = self.op = call.op
        self.name = path_of(call.op, call.parent, "/")
        self.products: list[Product] = []
        self._passes: list[tuple] = []
        self._scales: list[tuple] = []
        self._config_axes: dict = {}
        self._said: set[tuple[int, int]] = set()  # (input, axis)

    # -- what a rule says ------------------------------------------------

    def declare(self) -> None:
        """Says what the layer does, by the methods that follow."""
        self.passes()

    def passes(self, axes=None, source: int = 0, value=None) -> None:
        """Units along these axes are the same behind the layer.

        Args:
            axes: Of the input, or a dict from these to those of the outputs;
                None: all that are followed, each to the same axis.
            source: Index of the input.
            value: What becomes of a constant: function from an array with NaN
                where there is none to another; None: it stays.
        """
        inputs = self.inputs[source]
        if axes is None:
            axes = list(inputs)
        if not isinstance(axes, dict):
            axes = {a: a for a in axes}
        for a, b in axes.items():
            if a in inputs:
                self._said.add((source, a))
                self._passes.append((source, a, b, value))
                for output in self.outputs:
                    self._set(output, b, inputs[a])

    def scales(
        self, variable, variable_axis: int = 0, axis: int = -1, role="norm"
    ) -> None:
        """Units that pass are multiplied by an entry of a variable.

        Args:
            variable: `keras.Variable`, or None.
            variable_axis: Of it, along which the units lie.
            axis: Of the output.
            role: See `Slice`.
        """
        ids = self.outputs[0].get(axis)
        if variable is None or ids is None:
            return
        self.tracer.slice(variable, role, ids, variable_axis)
        self._scales.append((variable, variable_axis, axis))

    def carries(self, variable, variable_axis=0, axis=-1, role="stat") -> None:
        """Entries of a variable go with the units, and compute nothing."""
        ids = self.outputs[0].get(axis)
        if variable is not None and ids is not None:
            self.tracer.slice(variable, role, ids, variable_axis)

    def multiplies(
        self,
        kernel,
        reads: dict,
        makes: dict,
        shares: dict | None = None,
        bias=None,
        bias_axes: dict | None = None,
        activation=None,
        kind: str = "units",
        keeps_constants: bool = True,
        source: int = 0,
    ) -> dict:
        """Y = activation(kernel x + bias): reads units, makes units.

        Args:
            kernel: `keras.Variable`.
            reads: Axis of the kernel -> axis of the input.
            makes: Axis of the kernel -> axis of the output.
            shares: Axis of the kernel -> axis of input and output, whose
                positions have weights of their own. Other axes of the kernel
                are taps: places of the same units.
            bias: `keras.Variable` or None.
            bias_axes: Axis of the bias -> axis of the output; None: the last
                of each.
            activation: Function or layer; None: none.
            kind: Of the units that it makes.
            keeps_constants: False: at a border only some taps meet an input,
                so that of constants only 0 gives the same everywhere.
            source: Index of the input.

        Returns:
            Axis of the output -> elements made.
        """
        product = Product(
            self,
            kernel,
            reads,
            makes,
            shares or {},
            bias,
            {-1: -1} if bias_axes is None else bias_axes,
            activation,
            kind,
            keeps_constants,
            source,
        )
        self.products.append(product)
        made = product.trace()
        self._said |= {
            (source, axis)
            for axis in (*product.reads.values(), *product.shares.values())
        }
        return made

    def resizes(self, **axes: int) -> None:
        """Entries of the config are numbers of units along output axes."""
        self._config_axes.update(axes)

    def stays(self, reason: str, axes=None, source: int = 0, exact=False):
        """Units along axes of an input must stay.

        Args:
            reason: Why; the layer's name is put before it.
            axes: None: all.
            source: Index of the input.
            exact: They may go where results may change.
        """
        for a, ids in self.inputs[source].items():
            if axes is None or a in axes:
                self._said.add((source, a))
                self.tracer.elements.fix(
                    ids, f"{self.name} {reason}", only_if_exact=exact
                )

    def fresh(self, output: int, axis: int, reason: str) -> None:
        """What lies along an axis of an output must stay."""
        size = self.call.output_shapes[output][axis]
        if size is not None:
            ids = self.tracer.elements.new(size, Space(self.name, "fixed"))
            self.tracer.elements.fix(ids, reason)
            self.outputs[output][axis] = ids

    def refuse(self, reason: str) -> None:
        """Nothing of it can be followed: all that comes and goes stays."""
        for i, axes in enumerate(self.inputs):
            for axis, ids in axes.items():
                self._said.add((i, axis))
                self.tracer.elements.fix(ids, reason)
        for i, shape in enumerate(self.call.output_shapes):
            if len(shape) > 1:
                self.fresh(i, -1, reason)

    def _set(self, output, axis, ids):
        if axis in output:
            self.tracer.elements.union(output[axis], ids)
        else:
            output[axis] = ids

    # -- what the engine asks --------------------------------------------

    def trace(self, tracer: Tracer, inputs: list[Axes]) -> list[Axes]:
        """Registers weights; the axes of the outputs."""
        self.tracer, self.inputs = tracer, inputs
        self.outputs: list[Axes] = [{} for _ in self.call.outputs]
        self.declare()
        if type(self).needs is Rule.needs:
            self._check_inputs()
        self.check_sizes()
        return self.outputs

    def _check_inputs(self) -> None:
        """Fixes units of which the rule says nothing."""
        for i, axes in enumerate(self.inputs):
            for axis, ids in axes.items():
                if (i, axis) not in self._said:
                    self.tracer.elements.fix(
                        ids,
                        f"the rule of {self.name} says nothing of axis {axis} "
                        f"of input {i}",
                    )

    def follow(self, axis: int, source: int = 0) -> np.ndarray:
        """Elements along an axis of an input.

        Those of an axis that nothing followed until here stay.
        """
        if axis not in self.inputs[source]:
            size = self.call.input_shapes[source][axis]
            ids = self.tracer.elements.new(size, Space(self.name, "fixed"))
            self.tracer.elements.fix(ids, f"{self.name} reads an axis of places")
            self.inputs[source] = {**self.inputs[source], axis: ids}
        return self.inputs[source][axis]

    def check_sizes(self) -> None:
        """Fixes what does not fit: a mistake of a rule, or an odd model."""
        for shape, axes in zip(
            self.call.output_shapes, self.outputs, strict=True
        ):
            for axis, ids in list(axes.items()):
                size = shape[axis] if -axis <= len(shape) else 0
                if size is not None and size != len(ids):
                    self.tracer.elements.fix(
                        ids,
                        f"the rule of {self.op.name} "
                        f"({type(self.op).__name__}) expects {len(ids)} units "
                        f"along axis {axis} of its result, which has the "
                        f"shape {shape}",
                    )
                    del axes[axis]

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
