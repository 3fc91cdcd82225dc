"""Names that are unique within a model."""

from __future__ import annotations

import contextlib

import keras

from tf_ssl.graph.calls import Call


class Names:
    """Names of the layers of a model that is being built.

    Args:
        graph: Of which layers keep their names, the first of each name; None:
            there are none.
        inputs: KerasTensors whose names are taken.
    """

    def __init__(self, graph=None, inputs=()):
        self._holders: dict[str, int | None] = {x.name: None for x in inputs}
        for item in graph.items if graph else ():
            if isinstance(item.op, keras.Layer) and (
                isinstance(item, Call) or item.is_model
            ):
                self._holders.setdefault(item.op.name, id(item.op))

    def new(self, name) -> str:
        """The name, with a number if it is taken; it is taken now."""
        if name in self._holders:
            name = _numbered(name, self._holders)
        self._holders[name] = None
        return name

    def keeps(self, op) -> bool:
        """Whether no other has an operation's name."""
        return self._holders.get(op.name, id(op)) == id(op)

    @contextlib.contextmanager
    def free(self, op):
        """An operation's name is free meanwhile, for what stands in for it."""
        holder = self._holders.get(op.name)
        if holder == id(op):
            del self._holders[op.name]
        yield
        if holder == id(op):
            self._holders.setdefault(op.name, holder)

    def of_operations(self, outputs) -> None:
        """Renames operations, not layers, that are called as others are.

        Args:
            outputs: KerasTensors, all that the model returns.
        """
        found, waiting = {}, list(outputs)
        while waiting:
            op = waiting.pop()._keras_history.operation
            if id(op) not in found:
                found[id(op)] = op
                for node in op._inbound_nodes:
                    waiting += node.input_tensors
        operations = list(found.values())[::-1]
        names = {op.name for op in operations if isinstance(op, keras.Layer)}
        for op in operations:
            if isinstance(op, keras.Layer):
                continue
            if op.name in names:
                op.name = _numbered(op.name, names | self._holders.keys())
            names.add(op.name)


def _numbered(name, taken):
    """The name with the first number that makes it new."""
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
