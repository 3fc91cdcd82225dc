"""What a moving operation becomes when units go."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.structures.rules.moves.labels import ABSENT

# Operations that act on positions along the axis of units in such a way that
# `config` and `rearrange` cannot say it again for fewer of them.
_BY_POSITION = {"Roll", "Rot90", "CropImages", "ArraySplit"}


def can_be_cut(rule, o: int, axis: int, out_axis: int) -> bool:
    """Whether the operation does with some units what it does with all.

    Args:
        rule: `Moves`.
        o: Index of the output.
        axis: Of the inputs, along which units lie.
        out_axis: Of the output.
    """
    name = type(rule.op).__name__
    rows = _units(rule, o, out_axis)
    if rows == [[i] for i in range(rule.total)]:
        return True  # one by one, in order
    if name == "GetItem":
        return all(
            not isinstance(part, slice) or part.step in (None, 1)
            for part in _slices_of(rule, axis)
        )
    if name == "Repeat":
        return np.size(rule.op.repeats) == 1
    return name not in _BY_POSITION


def _units(rule, o, out_axis):
    """Numbers of units at each position, without those that are put there."""
    _, rows = rule.sources[o][out_axis]
    rows = [[x for x in labels if x != ABSENT] for labels in rows]
    return [labels for labels in rows if labels]


def new_config(rule, keep) -> dict:
    """Entries of the operation's config that are sizes.

    Args:
        rule: `Moves`.
        keep: Function from elements to a boolean array: which stay.
    """
    name, op = type(rule.op).__name__, rule.op
    after, before = _size(rule, keep), list(rule.call.output_shapes[0])
    if name == "Reshape":
        if isinstance(op, keras.Layer):
            target = _resized(op.target_shape, before[1:], after[1:])
            return {"target_shape": target}
        return {"newshape": _resized(op.newshape, before, after)}
    if name == "BroadcastTo":
        return {"shape": _resized(op.shape, before, after)}
    if name == "Slice":
        return {"shape": _resized(op.shape, before, after)}
    if name == "Split":
        return {"indices_or_sections": _sections(rule, keep)}
    if name == "Pad":
        return {"pad_width": _widths(rule, keep)}
    return {}


def _size(rule, keep):
    shape = list(rule.call.output_shapes[0])
    for axis, ids in rule.outputs[0].items():
        shape[axis] = int(keep(ids).sum())
    return shape


def _resized(target, before, after):
    """A shape among the arguments: what is followed changes."""
    return tuple(
        t if t == -1 or b == a else a
        for t, b, a in zip(target, before, after, strict=True)
    )


def _sections(rule, keep):
    rank = len(rule.call.input_shapes[0])
    axis = rule.op.axis % rank - rank
    if axis not in rule.inputs[0] or not all(axis in x for x in rule.outputs):
        return rule.op.indices_or_sections
    if keep(rule.inputs[0][axis]).all():
        return rule.op.indices_or_sections
    sizes = [int(keep(out[axis]).sum()) for out in rule.outputs]
    return np.cumsum(sizes)[:-1].tolist()


def _widths(rule, keep):
    widths = [list(pair) for pair in rule.op.pad_width]
    for axis in rule.outputs[0]:
        _, rows = rule.sources[0][axis]
        stays = keep(rule.outputs[0][axis])
        own = [list(labels) == [ABSENT] for labels in rows]
        if not any(own) or all(own):
            continue
        first = own.index(False)
        last = len(own) - own[::-1].index(False)
        widths[axis] = [int(stays[:first].sum()), int(stays[last:].sum())]
    return tuple(map(tuple, widths))


def new_key(rule, keep, args: tuple, kwargs: dict) -> tuple:
    """Arguments of x[key] of what stays."""
    key, parts = _key(args, kwargs)
    rank = len(rule.call.input_shapes[0])
    for position, axis in axes_of_key(parts, rank):
        ids, part = rule.inputs[0].get(axis - rank), parts[position]
        if ids is None or not isinstance(part, slice):
            continue
        stays = keep(ids)
        if stays.all():
            continue
        if part == slice(None, None, part.step):
            continue
        start, stop, _ = part.indices(len(ids))
        parts[position] = slice(
            int(stays[:start].sum()), int(stays[:stop].sum())
        )
    new = tuple(parts) if isinstance(key, tuple | list) else parts[0]
    if len(args) > 1:
        return (args[0], new, *args[2:]), kwargs
    return args, {**kwargs, "key": new}


def _slices_of(rule, axis):
    """Parts of the key of x[key] along an axis, from the end."""
    _, parts = _key(rule.call.args, rule.call.kwargs)
    rank = len(rule.call.input_shapes[0])
    return [
        parts[position]
        for position, a in axes_of_key(parts, rank)
        if a - rank == axis
    ]


def _key(args, kwargs):
    key = args[1] if len(args) > 1 else kwargs["key"]
    return key, list(key) if isinstance(key, tuple | list) else [key]


def axes_of_key(parts, rank):
    """(position in the key, axis of the input) of what is no new axis."""
    used = sum(x is not None and x is not Ellipsis for x in parts)
    axis = 0
    for position, part in enumerate(parts):
        if part is None:
            continue
        if part is Ellipsis:
            axis += rank - used
            continue
        yield position, axis
        axis += 1
