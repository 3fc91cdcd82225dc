"""Names that are unique within a model."""

from __future__ import annotations

import keras


def name_operations(outputs, taken):
    """Renames operations, not layers, that are called as others are."""
    found, waiting, done = [], list(outputs), set()
    while waiting:
        op = waiting.pop()._keras_history.operation
        if id(op) in done:
            continue
        done.add(id(op))
        found.append(op)
        for node in op._inbound_nodes:
            waiting += node.input_tensors
    names = {op.name for op in found if isinstance(op, keras.Layer)}
    for op in reversed(found):
        if isinstance(op, keras.Layer):
            continue
        if op.name in names:
            op.name = numbered(op.name, names | taken.keys())
        names.add(op.name)


def numbered(name, taken):
    """The name with the first number that makes it new."""
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
