"""A model as a list of calls: the data of it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import keras

from tf_ssl.graph.opening import Batch


@dataclasses.dataclass(eq=False)
class Tensor:
    """A value that flows through a graph.

    Attributes:
        shape: With None where a size is not known.
        dtype: Its name.
        name: Of the KerasTensor it stands for.
    """

    shape: tuple
    dtype: str
    name: str

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or of a keras.ops operation.

    Attributes:
        op: The layer or operation; `Bind` where a nested graph begins or ends;
            `Source` for a variable or an array.
        args: Positional arguments, `Tensor`s in place of KerasTensors.
        kwargs: Likewise.
        inputs: The `Tensor`s among them, masks left out.
        outputs: `Tensor`s.
        parent: The `Nested` that it is part of, or None.
    """

    op: Any
    args: tuple
    kwargs: dict
    inputs: list[Tensor]
    outputs: list[Tensor]
    parent: Nested | None = None

    @property
    def input_shapes(self) -> list[tuple]:
        """Shapes of the inputs."""
        return [tensor.shape for tensor in self.inputs]

    @property
    def output_shapes(self) -> list[tuple]:
        """Shapes of the outputs."""
        return [tensor.shape for tensor in self.outputs]

    @property
    def arguments(self) -> dict:
        """All arguments by the names that `op.call` gives them."""
        signature = inspect.signature(self.op.call)
        bound = signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                found.update(found.pop(name, {}))
        return found

    def index(self, tensor) -> int | None:
        """Position of a tensor among the inputs; None: not one of them."""
        for i, other in enumerate(self.inputs):
            if other is tensor:
                return i
        return None


@dataclasses.dataclass(eq=False)
class Nested:
    """One call of a nested model, or of a composite layer, with its inside.

    Attributes:
        op: The model or layer.
        args: As `Call`'s.
        kwargs: Likewise.
        outputs: `Tensor`s.
        parent: The `Nested` around it, or None.
        graph: Inside.
        is_model: A Functional or Sequential model, which stays one; else a
            composite layer or a subclassed model.
        trains_otherwise: Its own code does something else in training, which
            the graph does not show.
        masks: For each output the `Tensor` that is its mask, or None.
    """

    op: Any
    args: tuple
    kwargs: dict
    outputs: list[Tensor]
    parent: Nested | None
    graph: Graph
    is_model: bool
    trains_otherwise: bool = False
    masks: list = dataclasses.field(default_factory=list)


class Bind:
    """Passes a tensor into or out of a nested graph."""

    name = "bind"


@dataclasses.dataclass(eq=False)
class Graph:
    """The inside of a model or of a composite layer.

    Attributes:
        model: It.
        inputs: `Tensor`s.
        outputs: `Tensor`s.
        items: `Call`s and `Nested`s, each after those that it depends on.
        inputs_structure: Structure that `model` is called with.
        outputs_structure: Structure that it returns.
        closed: (layer's name, reason) of composite layers that do not open.
        batch: The size that stood for the batch while it was opened, or None.
    """

    model: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    items: list
    inputs_structure: Any = None
    outputs_structure: Any = None
    closed: list = dataclasses.field(default_factory=list)
    batch: Batch | None = None

    def calls(self) -> list[Call]:
        """All `Call`s, those of nested graphs in their place."""
        found = []
        for item in self.items:
            if isinstance(item, Nested):
                found += item.graph.calls()
            else:
                found.append(item)
        return found


def path_of(op, parent, separator: str) -> str:
    """An operation's name behind those of the composite layers around it."""
    names = [op.name]
    while parent is not None and not parent.is_model:
        if not isinstance(parent.op, keras.Model):
            names.append(parent.op.name)
        parent = parent.parent
    return separator.join(reversed(names))
