"""A batch size that stands out, and is taken out of a graph again."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras.src.ops.symbolic_arguments import SymbolicArguments

from tf_ssl.graph.opening.reasons import CannotOpen
from tf_ssl.graph.sources import Rows, Source

# Where one of them turns up, a layer has asked for the size of its batch.
_PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061)
# Of these one argument may have a single row for all examples of another.
_BROADCASTING = {
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum"),
    *("Minimum", "Where", "Equal", "NotEqual", "Greater", "GreaterEqual"),
    *("Less", "LessEqual", "LogicalAnd", "LogicalOr", "LogicalXor"),
}


def batches_for(layer, arguments) -> list[Batch]:
    """Three batch sizes that no size in a layer is a multiple of."""
    sizes = set()
    for inner in layer._flatten_layers():
        for value in keras.tree.flatten(list(vars(inner).values())):
            sizes.update(_sizes(value))
    for value in keras.tree.flatten(arguments):
        sizes.update(_sizes(value))
    fit = [p for p in _PRIMES if not any(n and n % p == 0 for n in sizes)]
    if len(fit) < 3:
        raise CannotOpen(f"its sizes are multiples of {_PRIMES}")
    return [Batch(size) for size in fit[:3]]


def _sizes(value):
    if isinstance(value, int | np.integer):
        return [abs(int(value))]
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple | list) and not keras.ops.is_tensor(value):
        return []
    return [n for n in tuple(shape) if isinstance(n, int)]


@dataclasses.dataclass(eq=False)
class Batch:
    """A size that stands for any number of examples.

    Attributes:
        size: A prime number.
        is_used: Whether something was opened at this size.
    """

    size: int
    is_used: bool = False

    def without(self, shape) -> tuple:
        """A shape with None in place of the size and its multiples."""
        if not self.is_used:
            return tuple(shape)
        return tuple(None if self.is_in(n) else n for n in shape)

    def is_in(self, value) -> bool:
        """Whether a number is the size or a multiple of it."""
        if isinstance(value, slice):
            return any(map(self.is_in, (value.start, value.stop, value.step)))
        is_number = isinstance(value, int | float | np.number)
        return (
            is_number
            and not isinstance(value, bool)
            and value != 0
            and value % self.size == 0
        )

    def has_rows(self, value) -> bool:
        """Whether it is an array with rows for each example."""
        if isinstance(value, keras.KerasTensor):
            return False
        is_array = keras.ops.is_tensor(value) or isinstance(value, np.ndarray)
        return is_array and any(map(self.is_in, value.shape))

    def row(self, value) -> np.ndarray:
        """The one row of an array that has the same for each example.

        Raises:
            CannotOpen: Rows differ, or its batch is another axis.
        """
        value = keras.ops.convert_to_numpy(value)
        if not any(map(self.is_in, value.shape[1:])):
            if (value == value[:1]).all():
                return value[:1]
        raise CannotOpen(
            "it makes an array with other numbers for each example of the batch"
        )

    def taken_out(self, node, anchor) -> list:
        """Makes a node hold for any batch size.

        Args:
            node: Keras' node; changed.
            anchor: KerasTensor with the batch on its first axis.

        Returns:
            Nodes that it depends on now, to be put before it.

        Raises:
            CannotOpen: It does not hold for any batch size.
        """
        op = node.operation
        if isinstance(op, Source | Rows):
            return []
        arguments = (node.arguments.args, node.arguments.kwargs)
        if not isinstance(op, keras.Layer):
            self._take_out_of_operation(node)
        broadcasts = type(op).__name__ in _BROADCASTING and any(
            t.shape and (t.shape[0] is None or self.is_in(t.shape[0]))
            for t in node.input_tensors
        )
        rank = len(node.outputs[0].shape)
        before: list = []

        def any_batch(x):
            if self.is_in(x):
                raise CannotOpen(
                    f"its {_word(op)} is given the size of the batch"
                )
            if not self.has_rows(x):
                return x
            row = self.row(x)
            if broadcasts and row.ndim == rank:
                return row
            made = in_rows(row, anchor)
            for tensor in (made._keras_history.operation._source, made):
                operation = tensor._keras_history.operation
                before.append(operation._inbound_nodes[-1])
            return made

        args, kwargs = keras.tree.map_structure(any_batch, arguments)
        node.arguments = SymbolicArguments(*args, **kwargs)
        return before

    def _take_out_of_operation(self, node):
        op = node.operation
        name = type(op).__name__
        held = {k: v for k, v in vars(op).items() if k[0] != "_"}
        if any(
            isinstance(v, list | tuple) and None in v for v in held.values()
        ):
            raise CannotOpen(
                f"its operation {name} needs a size that is not known"
            )
        if name == "Reshape":
            self._reshape(node)
            return
        for value in keras.tree.flatten(held):
            if self.is_in(value) or self.has_rows(value):
                raise CannotOpen(
                    f"its operation {name} is given the size of the batch"
                )

    def _reshape(self, node):
        op = node.operation
        shape = tuple(op.newshape)
        if not any(map(self.is_in, shape)):
            return
        known = node.outputs[0].shape
        new = tuple(
            -1 if self.is_in(n) else known[i] if n == -1 else n
            for i, n in enumerate(shape)
        )
        if new.count(-1) > 1 or None in new:
            raise CannotOpen(
                "it reshapes its batch and another unknown size at once"
            )
        node.operation = type(op)(new)


def in_rows(row, anchor):
    """An array of one row, or a tensor of it, for each example of a batch."""
    if not isinstance(row, keras.KerasTensor):
        row = Source(row)(anchor)
    rows = Rows()
    rows._source = row
    return rows(row, anchor)


def _word(op):
    if isinstance(op, keras.Layer):
        return f"layer {op.name}"
    return f"operation {type(op).__name__}"
