"""What a model that is built from a graph has in place of what."""

from __future__ import annotations

import numpy as np

from tf_ssl.graph.calls import Call, Nested, Tensor
from tf_ssl.graph.sources import Source


class Decisions:
    """What subclasses of `Rewriter` decide. Here: all stays as it is."""

    def opens(self, nested: Nested) -> bool:
        """Whether what is inside a composite layer takes its place."""
        return True

    def successor(self, op):
        """What stands in for a layer or operation; None: a copy of it."""
        return None

    def following(self, op) -> list:
        """Layers that are called, one after the other, on what it makes."""
        return []

    def instead(self, call: Call, given: list):
        """The outputs of a call, where it is not made; None: it is.

        Args:
            call: `Call`.
            given: Values of `call.inputs`.
        """
        return None

    def arguments(self, call: Call, args: tuple, kwargs: dict) -> tuple:
        """Arguments of a call."""
        return args, kwargs

    def called(self, op, new, outputs) -> None:
        """A layer's successor was called for the first time."""

    def cut(self, tensor: Tensor, value: np.ndarray, source: Source):
        """The value of a variable or array that a layer held."""
        return value

    def input(self, tensor: Tensor, is_outer: bool) -> tuple:
        """(shape of an input, function from it to what flows on)."""
        return tensor.shape, lambda x: x

    def paired(self, old, new) -> None:
        """A variable takes the place of another."""
