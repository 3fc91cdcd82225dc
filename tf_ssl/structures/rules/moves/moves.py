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
from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.moves.cutting import (
    can_be_cut,
    new_config,
    new_key,
)
from tf_ssl.structures.rules.moves.labels import ABSENT, FOREIGN, ties_of
from tf_ssl.structures.rules.table import structure_rule
from tf_ssl.structures.units import Space

_LARGEST = 2**26  # numbers that a graph may be asked to move
_SHIFT = 2**22  # float32 holds labels and this

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
        self.total = 0  # units along the axis that is looked at
        for axis in sorted({a for axes in self.inputs for a in axes}):
            moved = None
            self.total = len(self._ids_along(axis))
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
            return np.full(shape, FOREIGN, np.int32)
        around = [1] * len(shape)
        around[axis] = -1
        numbers = self._offsets[index] + np.arange(len(ids), dtype=np.int32)
        return np.broadcast_to(numbers.reshape(around), shape)

    def _run(self, labels) -> list[np.ndarray]:
        """The operation on labels; `ABSENT` where it puts zeros."""
        first, second = (self._moved_by(labels, n) for n in (3, 3 + _SHIFT))
        moved = []
        for a, b in zip(first, second, strict=True):
            # What does not move with the labels is the operation's own.
            own = np.where(a == 0, ABSENT, FOREIGN)
            moved.append(np.where(b - a == _SHIFT, a - 3, own).astype(np.int32))
        return moved

    def _moved_by(self, labels, shift):
        """The operation on labels plus a number, in float32: all have that."""
        given = iter(
            [
                keras.ops.convert_to_tensor((x + shift).astype(np.float32))
                for x in labels
            ]
        )

        def filled(x):
            if isinstance(x, Tensor) and self.call.index(x) is not None:
                return next(given)
            if isinstance(x, np.ndarray) or keras.ops.is_tensor(x):
                # An array beside tensors: nothing that is followed.
                return keras.ops.full(x.shape, float(FOREIGN + shift))
            return x

        args, kwargs = keras.tree.map_structure(
            filled, (self.call.args, self.call.kwargs)
        )
        op = self.op.call if isinstance(self.op, keras.Layer) else self.op
        flat = keras.tree.flatten(op(*args, **kwargs))
        return [keras.ops.convert_to_numpy(x) for x in flat]

    def _land(self, o, axis, moved):
        """Finds the axis along which units lie now."""
        best = None
        known = self.call.output_shapes[o]
        for out_axis in range(moved.ndim):
            rows = np.moveaxis(moved, out_axis, 0)
            rows = rows.reshape(len(rows), -1)
            ties = ties_of(rows)
            if ties is None or known[out_axis] is None:
                continue
            components, row_labels = ties
            rank = (self._prefers(o, out_axis, moved), components)
            if best is None or rank > best[0]:
                best = rank, out_axis - moved.ndim, row_labels, rows
        if best is None or best[0][1] < 2 <= len(self._ids_along(axis)):
            if not (moved == FOREIGN).all():
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
            if FOREIGN in labels:
                elements.fix(own, f"{self.name} joins them with others")
        for label, reason in ((FOREIGN, True), (ABSENT, False)):
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
        if not can_be_cut(self, o, axis, out_axis):
            name = type(self.op).__name__
            elements.fix(ids, f"{self.name} ({name}) works along them")
            # Of those that it leaves out as well: it counts them.
            self._give_up(f"({name}) works along them", axis)

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
            0.0 if x == ABSENT else values[x] if x >= 0 else np.nan
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

    def config(self, keep):
        return new_config(self, keep)

    def rearrange(self, keep, args, kwargs):
        if type(self.op).__name__ == "GetItem":
            return new_key(self, keep, args, kwargs)
        return args, kwargs
