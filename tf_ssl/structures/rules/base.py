"""What a rule says of a layer, and the table of rules."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import Call
from tf_ssl.structures.units import Axis, Elements, Space

# Activations that mix units, so that none can go.
MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax", "glu"}

_RULES: dict = {}  # class, or name of a class of keras.ops -> rule


def structure_rule(*layers):
    """Decorator: the class below says how these layers treat units.

    Args:
        *layers: Layer classes; for operations of keras.ops, which are not
            public classes, their names, such as "Relu".
    """

    def register(rule):
        for layer in layers:
            _RULES[layer] = rule
        return rule

    return register


def rule_of(call: Call) -> Rule:
    """The rule of a call; `Unknown` where there is none."""
    op = call.op
    if type(op).__module__.startswith("keras.src.ops"):
        return _RULES.get(type(op).__name__, Unknown)(call)
    for layer in type(op).__mro__:
        # A user's subclass may do anything; Keras' own subclasses of its own
        # classes are in the table themselves.
        if layer in _RULES:
            known = layer is type(op) or "call" not in vars(type(op))
            return (_RULES[layer] if known else Unknown)(call)
    return Unknown(call)


class Tracer:
    """Where rules write down what they find.

    Attributes:
        elements: `Elements`.
        slices: (variable, role, elements, axis), see `slice`.
        axes: Key of a tensor -> `Axis`; absent where none is followed.
        banks: Arrays `[groups, elements a group]` from which equally many must
            go in each group.
    """

    def __init__(self):
        self.elements = Elements()
        self.slices: list[tuple] = []
        self.axes: dict = {}
        self.banks: list[np.ndarray] = []
        self._seen: dict = {}

    def slice(self, variable, role: str, ids: np.ndarray, axis=None) -> None:
        """Weights of `variable` belong to elements.

        Args:
            variable: `keras.Variable` or None.
            role: See `Slice`.
            ids: Elements; -1: of none.
            axis: Along this axis of the variable; None: `ids` broadcasts to
                its shape.
        """
        if variable is None:
            return
        if axis is not None:
            shape = [1] * len(variable.shape)
            shape[axis] = -1
            ids = np.reshape(ids, shape)
        key = (id(variable), role, ids.shape)
        if key in self._seen:
            # The layer is called again: the same weights, the same units.
            self.elements.union(self._seen[key], ids)
            return
        self._seen[key] = ids
        self.slices.append((variable, role, ids, axis))


class Rule:
    """How a layer treats units. The default: it passes them on unchanged.

    A rule is made once a call. Arrays of constants have one entry a position
    of the followed axis: the value that is there whatever the input, or NaN.
    """

    # Weights that read units: there a constant can be folded.
    is_reader = False
    # A constant that padding interrupts is none.
    exact = True

    def __init__(self, call: Call):
        self.call = call
        self.op = call.op

    def trace(self, tracer: Tracer, inputs: list[Axis]) -> list[Axis | None]:
        """Registers weights; the axes of the outputs."""
        return [inputs[0] for _ in self.call.outputs]

    def constants(self, read, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Constants of the outputs.

        Args:
            read: Function from a variable to its value.
            inputs: Constants of the inputs.
        """
        return [inputs[0] for _ in self.call.outputs]

    def needs(self, read, outputs, inputs, gone) -> list[np.ndarray]:
        """Which positions of the inputs have an influence.

        Args:
            read: Function from a variable to its value.
            outputs: Which positions of the outputs have an influence.
            inputs: Constants of the inputs.
            gone: Which positions of the outputs will be removed.
        """
        return [outputs[0] for _ in self.call.inputs]

    def foldable(self, read, constants: np.ndarray, index: int) -> np.ndarray:
        """Where a removed constant input can be folded exactly (readers)."""
        return ~np.isnan(constants)

    def folds(self, read, constants: np.ndarray, index: int) -> list[tuple]:
        """What removed constants add (readers): [(bias or None, delta)].

        Args:
            read: Function from a variable to its value.
            constants: Of input `index`; 0 where nothing is removed.
            index: Of the input.
        """
        raise NotImplementedError

    def inner_dead(self, read, outputs, gone) -> list[tuple]:
        """Units that the layer itself reads: [(elements, which are dead)].

        Args:
            read: Function from a variable to its value.
            outputs: Which positions of the outputs have an influence.
            gone: Which positions of the outputs will be removed.
        """
        return []

    def successor(self, keep):
        """What stands in for the layer, where another config is not enough.

        It is called as the layer is and has the same `variables`.
        """
        return None

    def config(self, keep) -> dict:
        """Entries of the layer's config that change.

        Args:
            keep: Function from elements to a boolean array: which stay.
        """
        return {}

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


class Unknown(Rule):
    """A layer without a rule: all its units stay."""

    def trace(self, tracer, inputs):
        name = type(self.op).__name__
        how = (
            f"the operation {name} has no rule"
            if type(self.op).__module__.startswith("keras.src.ops")
            else f"the layer {self.op.name} ({name}) has no rule; add one with "
            f"@tf_ssl.structure_rule({name})"
        )
        return self.keep_all(tracer, inputs, how)

    def keep_all(self, tracer, inputs, reason):
        """Fixes what comes in, and makes what goes out fixed."""
        for axis in inputs:
            if axis is not None:
                tracer.elements.fix(axis.ids, reason)
        return [
            fixed_axis(tracer, shape, self.op.name, reason)
            for shape in self.call.output_shapes
        ]

    def constants(self, read, inputs):
        return [np.full(n, np.nan) for n in self.output_lengths()]

    def output_lengths(self):
        """Positions of the last axis of each output."""
        return [
            (s[-1] or 0) if len(s) > 1 else 0 for s in self.call.output_shapes
        ]

    def needs(self, read, outputs, inputs, gone):
        return [np.ones(len(x), bool) for x in inputs]


def fixed_axis(tracer, shape, name, reason) -> Axis | None:
    """Fresh elements along the last axis that must stay."""
    if len(shape) < 2 or shape[-1] is None:
        return None
    ids = tracer.elements.new(shape[-1], Space(name, "fixed", ("out",)))
    tracer.elements.fix(ids, reason)
    return Axis(-1, ids)


def data_axis(layer) -> int:
    """The axis of channels of a layer with a data format."""
    if getattr(layer, "data_format", None) == "channels_first":
        return 1
    return -1


def call_numpy(op, call: Call, tensors) -> np.ndarray:
    """A call with NumPy arrays instead of its tensors, in inference."""
    args, kwargs = keras.tree.map_structure(
        lambda x: next(tensors) if hasattr(x, "_keras_history") else x,
        call.arguments,
    )
    if isinstance(op, keras.Layer) and op._call_has_training_arg:
        kwargs = {**kwargs, "training": False}
    return keras.ops.convert_to_numpy(op(*args, **kwargs))
