"""What a rule says of a layer, and what follows for units."""

from __future__ import annotations

import numpy as np

from tf_ssl.graph.walk import Call, path_of
from tf_ssl.structures.rules.kernels.product import Product
from tf_ssl.structures.rules.tracer import Tracer
from tf_ssl.structures.units import Axes, Space


class Declaration:
    """What a call reads, makes, scales and passes, along which axes.

    Args:
        call: `Call`.
    """

    tracer: Tracer
    inputs: list[Axes]
    outputs: list[Axes]

    def __init__(self, call: Call):
        self.call = call
        self.layer = self.op = call.op
        self.name = path_of(call.op, call.parent, "/")
        self.products: list[Product] = []
        self._passes: list[tuple] = []
        self._scales: list[tuple] = []
        self._config_axes: dict = {}
        self._said: set[tuple[int, int]] = set()  # (input, axis)

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

    def follow(self, axis: int, source: int = 0) -> np.ndarray:
        """Elements along an axis of an input.

        Those of an axis that nothing followed until here stay.
        """
        if axis not in self.inputs[source]:
            size = self.call.input_shapes[source][axis]
            ids = self.tracer.elements.new(size, Space(self.name, "fixed"))
            self.tracer.elements.fix(
                ids, f"{self.name} reads an axis of places"
            )
            self.inputs[source] = {**self.inputs[source], axis: ids}
        return self.inputs[source][axis]

    def ignores(self, source: int) -> None:
        """Of an input only the sizes are read."""
        self._said |= {(source, axis) for axis in self.inputs[source]}

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
