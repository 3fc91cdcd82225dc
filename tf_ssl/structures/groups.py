"""Groups of a kernel: which of its weights live and die together."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tf_ssl import checks

# Axes of a kernel by letters: k a spatial axis, c inputs, b banks of a grouped
# convolution, t gates of a recurrent unit, f filters (of a bank).
_LAYOUTS = {
    "dense": "cf",
    "embedding": "cf",
    "conv": "cbf",
    "transposed": "fc",
    "depthwise": "bf",  # a bank for each channel
    "lstm": "ctf",
    "gru": "ctf",
}
_SPATIAL = ("conv", "transposed", "depthwise")
_GATES = {"lstm": 4, "gru": 3}
# Axes that tell groups apart; the others are summed inside a group.
_KEPT = {
    "filter": "bf",
    "channel": "cb",
    "shape": "kcb",
    "kernel2d": "cbf",
    "layer": "",
    "row": "bf",
    "column": "kcb",
}
GROUPS = tuple(_KEPT)
KINDS = ("auto", *_LAYOUTS)


@dataclasses.dataclass(frozen=True)
class Partition:
    """Disjoint groups that cover a kernel: all of one size.

    The kernel, its axes put in the order `permutation` and reshaped to
    `view_shape`, has its groups along `axes`.

    Attributes:
        kernel_shape: Shape of the kernel.
        permutation: Order of the kernel's axes; None: as they are.
        view_shape: Shape after that, in which `axes` are whole axes.
        axes: Axes of the view that are summed inside a group.
    """

    kernel_shape: tuple[int, ...]
    permutation: tuple[int, ...] | None
    view_shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def group_size(self) -> int:
        """Number of weights of a group."""
        return math.prod(self.view_shape[axis] for axis in self.axes)

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return math.prod(self.view_shape) // max(self.group_size, 1)

    def norms(self, kernel: np.ndarray) -> np.ndarray:
        """Euclidean norm of each group, float64, one entry a group.

        Args:
            kernel: Array of shape `kernel_shape`.

        Returns:
            Array whose axes are those of the view that are not summed.
        """
        view = np.asarray(kernel, np.float64)
        if self.permutation is not None:
            view = view.transpose(self.permutation)
        view = view.reshape(self.view_shape)
        return np.sqrt(np.square(view).sum(axis=self.axes))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Gives each weight the value of its group.

        Args:
            values: One a group, shaped as `norms` returns them.

        Returns:
            Array of shape `kernel_shape`.
        """
        view = np.expand_dims(values, self.axes)
        view = np.broadcast_to(view, self.view_shape)
        if self.permutation is None:
            return view.reshape(self.kernel_shape)
        permuted = [self.kernel_shape[axis] for axis in self.permutation]
        return view.reshape(permuted).transpose(np.argsort(self.permutation))


def resolve(kind: str, shape: tuple[int, ...], conv_groups: int = 1) -> str:
    """The kind of a kernel of this shape, never "auto".

    Rank 2 is dense, ranks 3 to 5 are conv.

    Raises:
        ValueError: A kernel of this kind has another shape.
    """
    rank = len(shape)
    ranks = {"auto": range(2, 6)} | dict.fromkeys(_SPATIAL, range(3, 6))
    if rank not in ranks.get(kind, (2,)):
        expected = {"auto": "2 to 5"} | dict.fromkeys(_SPATIAL, "3 to 5")
        raise ValueError(
            "Invalid value for argument kind. Expected a kernel of rank "
            f"{expected.get(kind, '2')} for kind={kind!r}. "
            f"Received: a kernel of shape {tuple(shape)}"
        )
    if kind == "auto":
        kind = "dense" if rank == 2 else "conv"
    if kind in _GATES and shape[-1] % _GATES[kind]:
        raise ValueError(
            "Invalid value for argument kind. Expected a last axis of "
            f"{_GATES[kind]} gates for kind={kind!r}. "
            f"Received: a kernel of shape {tuple(shape)}"
        )
    if conv_groups > 1 and kind != "conv":
        raise ValueError(
            f"Invalid value for argument conv_groups. Expected 1 for a {kind} "
            f"kernel. Received: conv_groups={conv_groups}"
        )
    if kind == "conv" and shape[-1] % conv_groups:
        raise ValueError(
            "Invalid value for argument conv_groups. Expected a divisor of "
            f"the {shape[-1]} filters of a kernel of shape {tuple(shape)}. "
            f"Received: conv_groups={conv_groups}"
        )
    return kind


def partition(
    groups: str | tuple,
    shape: tuple[int, ...],
    kind: str = "auto",
    conv_groups: int = 1,
) -> Partition:
    """Cuts a kernel into groups of one kind.

    >>> partition("filter", (5, 5, 1, 20)).num_groups
    20
    >>> partition(("block", (4, 5)), (5, 5, 1, 20)).group_size
    20

    Args:
        groups: One kind, as `group_specs.normalize` returns it.
        shape: Of the kernel.
        kind: One of `KINDS`.
        conv_groups: Banks of a grouped convolution.

    Raises:
        ValueError: A kernel of this shape has no such groups.
    """
    shape = tuple(int(n) for n in shape)
    kind = resolve(kind, shape, conv_groups)
    if groups[0] == "axis":
        return _along_axes(groups[1], shape, conv_groups)
    if groups[0] == "block":
        return _in_blocks(groups[1], shape, kind, conv_groups)
    letters, view = _layout(shape, kind, conv_groups)
    if groups == "kernel2d" and "k" not in letters:
        raise ValueError(
            "Invalid value for argument groups. Expected one of "
            f"{checks.quoted(g for g in GROUPS if g != 'kernel2d')} for a "
            f"{kind} kernel of shape {shape}, which has no spatial axes. "
            "Received: groups='kernel2d'"
        )
    kept = _KEPT[groups]
    axes = tuple(i for i, name in enumerate(letters) if name not in kept)
    return Partition(shape, None, view, axes)


def _layout(shape, kind, conv_groups) -> tuple[str, tuple[int, ...]]:
    """Letters of the axes of a kernel's view, and the shape of the view."""
    letters = _LAYOUTS[kind]
    view = shape
    if kind == "conv" and conv_groups == 1:
        letters = "cf"
    elif kind == "conv":
        view = (*shape[:-1], conv_groups, shape[-1] // conv_groups)
    elif kind in _GATES:
        view = (*shape[:-1], _GATES[kind], shape[-1] // _GATES[kind])
    return "k" * (len(view) - len(letters)) + letters, view


def _along_axes(axes, shape, conv_groups) -> Partition:
    rank = len(shape)
    positive = tuple(axis + rank if axis < 0 else axis for axis in axes)
    in_range = all(0 <= axis < rank for axis in positive)
    if not in_range or len(set(positive)) < len(positive):
        raise ValueError(
            "Invalid value for argument axis. Expected different axes of a "
            f"kernel of shape {shape}. Received: axis={axes}"
        )
    if conv_groups == 1:
        return Partition(shape, None, shape, tuple(sorted(positive)))
    # Filters of one bank only are summed, so that no group crosses banks.
    view = (*shape[:-1], conv_groups, shape[-1] // conv_groups)
    last = rank - 1
    summed = (axis + 1 if axis == last else axis for axis in positive)
    return Partition(shape, None, view, tuple(sorted(summed)))


def _in_blocks(block, shape, kind, conv_groups) -> Partition:
    """Blocks of the lowered matrix of each bank, `[filters, columns]`."""
    h, w = block
    permutation = None
    ordered = shape
    if kind == "transposed":  # filters last, as all others have them
        rank = len(shape)
        permutation = (*range(rank - 2), rank - 1, rank - 2)
        ordered = tuple(shape[axis] for axis in permutation)
    # [columns, banks or gates, filters]
    if kind == "depthwise":
        middle, filters = ordered[-2:]
        columns = math.prod(ordered[:-2])
    else:
        middle = _GATES.get(kind, conv_groups)
        filters = ordered[-1] // middle
        columns = math.prod(ordered[:-1])
    if filters % h or columns % w:
        raise ValueError(
            "Invalid value for argument block. Expected (h, w) that divide "
            f"the {filters} filters and {columns} columns of the lowered "
            f"matrix of a {kind} kernel of shape {shape}. "
            f"Received: block={block}"
        )
    view = (columns // w, w, middle, filters // h, h)
    axes = (1, 2, 4) if kind in _GATES else (1, 4)
    return Partition(shape, permutation, view, axes)
