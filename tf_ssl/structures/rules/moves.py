"""What moves numbers about without computing with them.

One rule for all of it: the operation itself is run on the numbers of the
positions, and where they land says which unit is where. Positions that land
along several axes at once (a reshape of channels into groups) are tied, so
that what remains lies along one.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from tf_ssl.graph.walk import Tensor
from tf_ssl.structures.rules.base import Rule, structure_rule
from tf_ssl.structures.units import Space

_FOREIGN = -1  # what is not followed
_ABSENT = -2  # what the operation itself puts there: zeros
_LARGEST = 2**26  # numbers that a graph may be asked to move

_OPERATIONS = """
    Reshape Ravel Transpose Swapaxes Moveaxis ExpandDims Squeeze Flip Fliplr
    Flipud Roll Rot90 Tile Repeat BroadcastTo Concatenate Append Stack Hstack
    Vstack Dstack Split ArraySplit Hsplit Vsplit Dsplit Unstack GetItem Slice
    Pad PadImages CropImages DepthToSpace SpaceToDepth ExtractPatches Unfold
""".split()


@structure_rule(
    *_OPERATIONS,
    layers.Concatenate,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
class Moves(Rule):
    """Follows units through any rearrangement of one example's numbers."""

    def declare(self):
        self.sources: list[dict] = [{} for _ in self.call.outputs]
        self._offsets = np.cumsum(
            [0, *(max(map(len, a.values()), default=0) for a in self.inputs)]
        )
        for axis in sorted({a for axes in self.inputs for a in axes}):
            moved = None
            for batch in dict.fromkeys((1, self._batch())):
                moved = moved or self._moved(axis, batch)
            if moved is None:
                self._give_up("changes a shape that is not known", axis)
                continue
            for o, array in enumerate(moved):
                self._land(o, axis, array)

    def _batch(self):
        """A batch size that a reshape can take apart (windows of images)."""
        known = [
            math.prod(n for n in shape if n is not None)
            for shape in (self.call.input_shapes[0], self.call.output_shapes[0])
        ]
        return known[1] // math.gcd(*known)

    def _moved(self, axis, batch):
        """Where positions along an axis land; None: not known."""
        labels = [self._labels(i, axis, batch) for i in range(len(self.inputs))]
        if any(label is None for label in labels):
            return None
        try:
            return self._run(labels)
        except Exception:  # what it is depends on the operation
            return None

    def _labels(self, index, axis, batch):
        """Numbers of positions, of an input's shape."""
        shape = [
            batch if i == 0 and n is None else n or 2
            for i, n in enumerate(self.call.input_shapes[index])
        ]
        if np.prod(shape, dtype=float) > _LARGEST:
            return None
        ids = self.inputs[index].get(axis)
        if ids is None:
            return np.full(shape, _FOREIGN, np.int32)
        around = [1] * len(shape)
        around[axis] = -1
        numbers = self._offsets[index] + np.arange(len(ids), dtype=np.int32)
        return np.broadcast_to(numbers.reshape(around), shape)

    def _run(self, labels) -> list[np.ndarray]:
        """The operation on labels; `_ABSENT` where it puts zeros."""
        given = iter([keras.ops.convert_to_tensor(x + 3) for x in labels])
        args, kwargs = keras.tree.map_structure(
            lambda x: (
                next(given)
                if isinstance(x, Tensor) and self.call.index(x) is not None
                else x
            ),
            (self.call.args, self.call.kwargs),
        )
        if isinstance(self.op, keras.Layer):
            outputs = self.op.call(*args, **kwargs)
        else:
            outputs = self.op(*args, **kwargs)
        flat = keras.tree.flatten(outputs)
        moved = [keras.ops.convert_to_numpy(x) - 3 for x in flat]
        # Zero, padded, comes out as -3; an edge repeated as itself.
        return [np.where(x == -3, _ABSENT, x) for x in moved]

    def _land(self, o, axis, moved):
        """Finds the axis along which units lie now."""
        best = None
        known = self.call.output_shapes[o]
        for out_axis in range(moved.ndim):
            rows = np.moveaxis(moved, out_axis, 0)
            rows = rows.reshape(len(rows), -1)
            ties = _ties(rows)
            if ties is None or known[out_axis] is None:
                continue
            components, row_labels = ties
            rank = (self._prefers(o, out_axis, moved), components)
            if best is None or rank > best[0]:
                best = rank, out_axis - moved.ndim, row_labels, rows
        if best is None or best[0][1] < 2 <= len(self._ids_along(axis)):
            if not (moved == _FOREIGN).all():
                self._give_up("spreads units over several axes", axis)
            return
        (_, out_axis, row_labels, rows) = best
        self._tie(rows, row_labels, o, axis, out_axis)

    def _prefers(self, o, out_axis, moved):
        """Of the ways to cut a product of axes, heads for attention.

        Not what is summed over, nor what is taken apart into queries, keys and
        values.
        """
        uses = self.tracer.uses.get(self.call.outputs[o], {})
        use = uses.get(out_axis - moved.ndim)
        return {"paired": 2, None: 1, "summed": 0}[use]

    def _ids_along(self, axis):
        return np.concatenate(
            [axes.get(axis, np.zeros(0, int)) for axes in self.inputs]
        )

    def _id(self, axis, label):
        index = int(np.searchsorted(self._offsets, label, "right")) - 1
        return self.inputs[index][axis][label - self._offsets[index]]

    def _tie(self, rows, row_labels, o, axis, out_axis):
        ids = np.zeros(len(rows), np.int64)
        elements = self.tracer.elements
        for r, labels in enumerate(row_labels):
            real = [x for x in labels if x >= 0]
            if not real:
                ids[r] = -1
                continue
            own = np.array([self._id(axis, x) for x in real])
            elements.union(np.full(len(own) - 1, own[0]), own[1:])
            ids[r] = own[0]
            if _FOREIGN in labels:
                elements.fix(own, f"{self.name} joins them with others")
        for label, reason in ((_FOREIGN, True), (_ABSENT, False)):
            missing = np.array(
                [r for r, x in enumerate(row_labels) if set(x) == {label}], int
            )
            if len(missing):
                new = elements.new(
                    len(missing),
                    Space(self.name, "fixed" if reason else "value"),
                )
                ids[missing] = new
                if reason:
                    elements.fix(new, f"{self.name} adds what is not followed")
        unsure = [r for r in range(len(rows)) if ids[r] < 0]
        if unsure:
            new = elements.new(len(unsure), Space(self.name, "fixed"))
            elements.fix(new, f"{self.name} mixes what is not followed")
            ids[unsure] = new
        if out_axis in self.outputs[o]:
            elements.fix(ids, f"{self.name} moves two axes to one")
            return
        self.outputs[o][out_axis] = ids
        self.sources[o][out_axis] = (axis, row_labels)
        self._check_cut(o, axis, out_axis)

    def _check_cut(self, o, axis, out_axis):
        """Fixes units where the operation cannot be given another size."""
        name = type(self.op).__name__
        changed = any(
            len(self.inputs[i].get(axis, ())) != len(self.outputs[o][out_axis])
            or axis != out_axis
            for i in range(len(self.inputs))
        )
        if name in _CUT:
            return
        if name in ("GetItem", "Slice", "Pad", "Roll", "Rot90") or (
            changed and name in _SIZED
        ):
            if not self._acts_elsewhere(o, axis, out_axis):
                self.tracer.elements.fix(
                    self.outputs[o][out_axis],
                    f"{self.name} ({name}) works along them",
                )

    def _acts_elsewhere(self, o, axis, out_axis):
        """Whether units are passed one by one, in order."""
        _, row_labels = self.sources[o][out_axis]
        (size,) = {len(a[axis]) for a in self.inputs if axis in a} or {0}
        own = [[x for x in labels if x != _ABSENT] for labels in row_labels]
        return own == [[i] for i in range(size)]

    def _give_up(self, what, axis):
        for axes in self.inputs:
            if axis in axes:
                self.tracer.elements.fix(axes[axis], f"{self.name} {what}")

    def constants(self, read, inputs):
        found = []
        for o, axes in enumerate(self.outputs):
            one = {a: np.full(len(ids), np.nan) for a, ids in axes.items()}
            for out_axis, (axis, row_labels) in self.sources[o].items():
                values = np.concatenate(
                    [
                        np.pad(
                            x.get(axis, np.zeros(0)),
                            (0, n - len(x.get(axis, ()))),
                            constant_values=np.nan,
                        )
                        for x, n in zip(
                            inputs, np.diff(self._offsets), strict=True
                        )
                    ]
                    + [[np.nan]]
                )
                one[out_axis] = np.array(
                    [self._row(labels, values) for labels in row_labels]
                )
            found.append(one)
        return found

    def _row(self, labels, values):
        given = {
            0.0 if x == _ABSENT else values[x] if x >= 0 else np.nan
            for x in labels
        }
        if not self.exact and len(labels) > 1:
            given = {values[x] for x in labels if x >= 0} or {0.0}
        return given.pop() if len(given) == 1 else np.nan

    def needs(self, read, wanted, inputs, gone):
        total = int(self._offsets[-1])
        found = [
            {a: np.zeros(len(v), bool) for a, v in one.items()}
            for one in inputs
        ]
        followed: set = set()
        for o, axes in enumerate(self.sources):
            for out_axis, (axis, row_labels) in axes.items():
                followed.add(axis)
                live = np.zeros(total, bool)
                for labels, is_live in zip(
                    row_labels, wanted[o][out_axis], strict=True
                ):
                    if is_live:
                        live[[x for x in labels if x >= 0]] = True
                for i, one in enumerate(found):
                    if axis in one:
                        start = self._offsets[i]
                        one[axis] |= live[start : start + len(one[axis])]
        for one in found:
            for axis in one:
                if axis not in followed:
                    one[axis][:] = True
        return found

    # -- cutting ---------------------------------------------------------

    def _size(self, keep, o=0):
        shape = list(self.call.output_shapes[o])
        for axis, ids in self.outputs[o].items():
            shape[axis] = int(keep(ids).sum())
        return shape

    def config(self, keep):
        name = type(self.op).__name__
        after, before = self._size(keep), list(self.call.output_shapes[0])
        if name == "Reshape" and isinstance(self.op, keras.Layer):
            return {"target_shape": _reshaped(before[1:], after[1:], self.op)}
        if name == "Reshape":
            return {"newshape": _new_shape(before, after, self.op.newshape)}
        if name == "BroadcastTo":
            return {"shape": tuple(after)}
        if name == "Split":
            return self._split(keep)
        if name in ("ZeroPadding2D",):
            return {}
        if name == "Pad":
            return self._pad(keep)
        return {}

    def _split(self, keep):
        axis = self.op.axis % len(self.call.input_shapes[0])
        axis -= len(self.call.input_shapes[0])
        if axis not in self.inputs[0]:
            return {"indices_or_sections": self.op.indices_or_sections}
        sizes = [int(keep(out[axis]).sum()) for out in self.outputs]
        return {"indices_or_sections": np.cumsum(sizes)[:-1].tolist()}

    def _pad(self, keep):
        widths = [list(pair) for pair in self.op.pad_width]
        for axis in self.outputs[0]:
            _, row_labels = self.sources[0][axis]
            stays = keep(self.outputs[0][axis])
            own = [list(x) == [_ABSENT] for x in row_labels]
            if not any(own):
                continue
            first = own.index(False)
            last = len(own) - own[::-1].index(False)
            widths[axis] = [int(stays[:first].sum()), int(stays[last:].sum())]
        return {"pad_width": tuple(map(tuple, widths))}

    def rearrange(self, keep, args, kwargs):
        name = type(self.op).__name__
        if name == "GetItem":
            return self._get_item(keep, args, kwargs)
        return args, kwargs

    def _get_item(self, keep, args, kwargs):
        arguments = {"key": args[1]} if len(args) > 1 else kwargs
        key = arguments["key"]
        parts = list(key) if isinstance(key, tuple | list) else [key]
        rank = len(self.call.input_shapes[0])
        for position, axis in axes_of_key(parts, rank):
            ids = self.inputs[0].get(axis - rank)
            part = parts[position]
            if ids is None or not isinstance(part, slice):
                continue
            stays = keep(ids)
            if stays.all():
                continue
            start, stop, _ = part.indices(len(ids))
            parts[position] = slice(
                int(stays[:start].sum()), int(stays[:stop].sum())
            )
        new = tuple(parts) if isinstance(key, tuple | list) else parts[0]
        if len(args) > 1:
            return (args[0], new, *args[2:]), kwargs
        return args, {**kwargs, "key": new}


# Operations that `config` and `rearrange` give other sizes.
_CUT = {"Split", "BroadcastTo"}
# Operations with sizes or positions in their arguments.
_SIZED = {"Slice", "Tile", "ExtractPatches", "Unfold", "CropImages"}


def axes_of_key(parts, rank):
    """(position in the key, axis of the input) of its slices."""
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


def _reshaped(before, after, layer):
    """A Reshape layer's target: what is followed changes."""
    target = list(layer.target_shape)
    return tuple(
        a if b is not None and a != b and t != -1 else t
        for t, b, a in zip(target, before, after, strict=True)
    )


def _new_shape(before, after, newshape):
    """An operation's new shape: what is followed changes."""
    newshape = list(newshape)
    return tuple(
        t if t == -1 or b == a else a
        for t, b, a in zip(newshape, before, after, strict=True)
    )


def _ties(rows):
    """(number of units, labels of each row), or None where rows share some.

    Args:
        rows: Labels `[positions along an axis, all others]`.
    """
    first = rows[:, :1]
    if (rows == first).all():
        labels = [(int(x),) for x in first[:, 0]]
        real = {x[0] for x in labels if x[0] >= 0}
        return (len(real), labels) if real else None
    if len(rows) == 1:
        return None
    labels = [tuple(np.unique(row).tolist()) for row in rows]
    real = [x for row in labels for x in row if x >= 0]
    if not real or len(real) != len(set(real)):
        return None
    return sum(any(x >= 0 for x in row) for row in labels), labels
