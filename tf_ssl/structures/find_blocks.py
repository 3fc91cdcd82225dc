"""Residual branches, which a model can lose as wholes."""

from __future__ import annotations

import numpy as np

from tf_ssl.structures.analysis import Trace, Weights, constants_of, trace
from tf_ssl.structures.rules.elementwise import Add
from tf_ssl.structures.structure import Slice, Structure, Structures


def find_blocks(model) -> Structures:
    """Finds residual branches: each is a structure of one unit.

    A branch is all that leads to one input of a sum and to nothing else; it has
    a kernel, and another input of the sum leads around it. Its kernels, biases,
    scales and shifts are one group, so that they vanish together: a branch of
    zeros adds nothing. (With the scales and shifts of its normalizations left
    out, as in the paper, a constant would remain.)

    Args:
        model: Built Functional or Sequential model. It is not changed.

    Returns:
        `Structures` of kind "block" and size 1, in the order of the model.

    Raises:
        ValueError: The model is not built or is a subclass with Python code.

    Reference:
        Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS
        2016, section 3.2 (depth-wise).
    """
    found = trace(model)
    calls_of = found.calls
    maker = {key: c for c, call in enumerate(calls_of) for key in call.outputs}
    readers: dict = {}
    for c, call in enumerate(calls_of):
        for key in call.inputs:
            readers.setdefault(key, []).append(c)
    times = {}
    for call in calls_of:
        times[id(call.op)] = times.get(id(call.op), 0) + 1
    structures, skipped = [], []
    for c, (call, rule) in enumerate(zip(calls_of, found.rules, strict=True)):
        if not isinstance(rule, Add) or len(call.inputs) < 2:
            continue
        if len(set(call.input_shapes)) > 1:
            skipped.append(
                (call.op.name, "it adds tensors of different shapes")
            )
            continue
        branches = [
            (key, _branch(found, key, c, maker, readers)) for key in call.inputs
        ]
        # Where there is a projection beside it, the longer one is the branch.
        key, calls = max(branches, key=lambda branch: len(branch[1]))
        ops = [calls_of[i].op for i in sorted(calls)]
        variables = {id(v) for op in ops for v in getattr(op, "variables", ())}
        slices = _slices(found, variables)
        if not any(len(part.variable.shape) > 1 for part in slices):
            skipped.append(
                (call.op.name, "no branch with a kernel leads to it")
            )
            continue
        if any(times[id(op)] > 1 for op in ops) or times[id(call.op)] > 1:
            skipped.append((call.op.name, "a layer of the branch is shared"))
            continue
        first = next(op for op in ops if _has_kernel(op))
        structures.append(
            Structure(
                f"{first.name}/block",
                1,
                slices,
                "block",
                ("out", "norm"),
                _Death(found, key, slices),
            )
        )
    return Structures(structures, skipped)


def _has_kernel(op):
    return any(len(v.shape) > 1 for v in getattr(op, "variables", ()))


def _branch(found, key, end, maker, readers):
    """Calls that lead to a tensor and to nothing else."""
    calls: set = set()
    outputs = set(found.graph.outputs)
    waiting = [key]
    while waiting:
        tensor = waiting.pop()
        if tensor not in maker or tensor in outputs:
            continue
        c = maker[tensor]
        outside = {
            reader
            for output in found.calls[c].outputs
            for reader in readers.get(output, ())
            if (reader != end or output != key) and reader not in calls
        }
        if outside or outputs.intersection(found.calls[c].outputs):
            continue
        calls.add(c)
        waiting += found.calls[c].inputs
    return calls


def _slices(found, variables):
    parts = {}
    for variable, role, ids, *_ in found.tracer.slices:
        if id(variable) in variables and role != "in":
            units = np.zeros([1] * len(ids.shape), np.int32)
            parts[id(variable)] = Slice(variable, role, units)
    return tuple(parts.values())


class _Death:
    """`Structure.is_dead`: the branch is constant everywhere."""

    def __init__(self, found: Trace, key, slices):
        self._found, self._key, self._slices = found, key, slices

    def __call__(self, threshold):
        read = Weights()
        block = Structure("", 1, self._slices, "block", ("out", "norm"))
        if block.norms()[0] <= threshold:
            for part in block.of():
                read.change(part.variable, np.zeros(part.variable.shape))
        values = constants_of(self._found, read)[self._key]
        return np.array(
            [any(len(v) > 0 and not np.isnan(v).any() for v in values.values())]
        )
