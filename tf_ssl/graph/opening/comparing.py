"""Whether a layer did the same when it was opened again."""

from __future__ import annotations

import keras

from tf_ssl.graph.sources import Source


def agree(opened, other) -> bool:
    """Whether two openings did the same with tensors of other sizes.

    Layers that the first left closed may have been opened by the second.
    """

    def without_sizes(found):
        *calls, outputs = found
        return [call[:-2] for call in calls], outputs

    first, second = signature(opened), signature(other)
    return without_sizes(first) == without_sizes(second) and all(
        agree(a.opened, b.opened)
        for a, b in zip(opened.nodes, other.nodes, strict=True)
        if getattr(a, "opened", None) is not None
        and getattr(b, "opened", None) is not None
    )


def signature(opened) -> list:
    """What says whether two openings of a layer did the same.

    But for the argument `training` of calls, and the size of the batch.
    """
    numbers = {id(t): i for i, t in enumerate(opened.inputs)}

    def said(x):
        if isinstance(x, keras.KerasTensor):
            return numbers.get(id(x), "mask")
        if isinstance(x, keras.Variable | keras.Operation):
            return id(x)
        if keras.ops.is_tensor(x) or hasattr(x, "tobytes"):
            x = keras.ops.convert_to_numpy(x)
            return (x.shape, str(x.dtype), x.tobytes())
        return x if isinstance(x, int | float | str | None) else str(x)

    def all_said(structure):
        return [said(x) for x in keras.tree.flatten(structure)]

    found: list = []
    for node in opened.nodes:
        op = node.operation
        kwargs = dict(node.arguments.kwargs)
        kwargs.pop("training", None)
        if isinstance(op, keras.Layer):
            held = [id(op)]
        elif isinstance(op, Source):
            held = [said(op.value)]
        else:
            held = [type(op).__name__] + [
                (k, all_said(v))
                for k, v in sorted(vars(op).items())
                if k[0] != "_" and k != "name"
            ]
        found.append(
            (
                held,
                [] if isinstance(op, Source) else all_said(node.arguments.args),
                sorted((k, all_said(v)) for k, v in kwargs.items()),
                [opened.batch.without(t.shape) for t in node.outputs],
                signature(node.opened)
                if getattr(node, "opened", None) is not None
                else None,
            )
        )
        for tensor in node.outputs:
            numbers[id(tensor)] = len(numbers)
    return [*found, all_said(opened.outputs_structure)]
