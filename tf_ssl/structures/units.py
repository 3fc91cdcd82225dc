"""Which positions of which tensors are the same unit: union-find."""

from __future__ import annotations

import dataclasses

import numpy as np

# The units of a tensor: axis, counted from the end (-1 is the last), to an
# integer array, the element of `Elements` at each position along it. An axis
# that is missing is not followed.
Axes = dict[int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Space:
    """Elements that a layer makes together.

    Attributes:
        name: Layer's name.
        kind: "filters", "units", "heads", "embedding", "input"; or, of what
            is no structure by itself, "fixed" or "value".
        roles: What the norm of its units counts by default.
    """

    name: str
    kind: str
    roles: tuple[str, ...] = ("out",)

    @property
    def is_named(self) -> bool:
        """Whether a structure can have its name."""
        return self.kind not in ("fixed", "value")


class Elements:
    """Elements and which of them are one unit."""

    def __init__(self):
        self._parent = np.zeros(0, np.int64)
        self._space_of = np.zeros(0, np.int64)
        self.spaces: list[Space] = []
        # Why elements must stay; and why they must unless results may change.
        self.reasons: dict[int, str] = {}
        self.inexact: dict[int, str] = {}

    def new(self, count: int, space: Space) -> np.ndarray:
        """Fresh elements."""
        first = len(self._parent)
        ids = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, ids])
        self._space_of = np.concatenate(
            [self._space_of, np.full(count, len(self.spaces))]
        )
        self.spaces.append(space)
        return ids

    def roots(self, ids) -> np.ndarray:
        """One element of each unit, the same for all its elements."""
        ids = np.asarray(ids)
        while True:
            above = self._parent[ids]
            if np.array_equal(above, ids):
                return ids
            ids = above

    def union(self, first, second) -> None:
        """Elements of two arrays are the same, position by position."""
        first, second = (
            self.roots(np.ravel(first)),
            self.roots(np.ravel(second)),
        )
        differ = first != second
        low = np.minimum(first, second)[differ]
        high = np.maximum(first, second)[differ]
        if len(np.unique(np.concatenate([low, high]))) == 2 * len(low):
            self._parent[high] = low  # the usual case: no root occurs twice
            return
        for a, b in zip(low, high, strict=True):
            a, b = int(self.roots(a)), int(self.roots(b))
            self._parent[max(a, b)] = min(a, b)

    def fix(self, ids, reason: str, only_if_exact: bool = False) -> None:
        """These must stay.

        Args:
            ids: Elements.
            reason: Why.
            only_if_exact: They may go where results may change.
        """
        reasons = self.inexact if only_if_exact else self.reasons
        for i in np.unique(ids):
            reasons.setdefault(int(i), reason)

    def fix_unnamed(self, reason: str) -> None:
        """Units of which no space is named must stay."""
        roots = self.roots(self.all())
        is_named = np.array([s.is_named for s in self.spaces], bool)
        named = np.zeros(len(roots), bool)
        named[roots[is_named[self._space_of]]] = True
        self.fix(np.flatnonzero(~named[roots]), reason)

    def fixed(self, exact: bool = True) -> dict[int, str]:
        """Root -> why the unit must stay."""
        result: dict[int, str] = {}
        for reasons in (self.reasons, self.inexact if exact else {}):
            for element, reason in reasons.items():
                result.setdefault(int(self.roots(element)), reason)
        return result

    def all(self) -> np.ndarray:
        """All elements."""
        return np.arange(len(self._parent))

    def space(self, element: int) -> int:
        """Index of an element's space."""
        return int(self._space_of[element])
