"""Where rules write down what they find."""

from __future__ import annotations

import numpy as np

from tf_ssl.structures.units import Axes, Elements


class Tracer:
    """Elements, weights and axes of a model.

    Attributes:
        elements: `Elements`.
        slices: (variable, role, elements, axis, owner), see `slice`.
        axes: `Tensor` -> `Axes`.
        uses: `Tensor` -> axis -> "summed" or "paired", by products of two.
        closed: Name of a composite layer that did not open -> why.
    """

    def __init__(self):
        self.elements = Elements()
        self.slices: list[tuple] = []
        self.axes: dict[object, Axes] = {}
        self.uses: dict[object, dict[int, str]] = {}
        self.closed: dict[str, str] = {}
        self.owner = None
        self._seen: dict = {}

    def slice(self, variable, role: str, ids: np.ndarray, axis=None) -> None:
        """Weights of `variable` belong to elements.

        Args:
            variable: `keras.Variable` or None.
            role: See `Slice`.
            ids: Elements; -1: of none.
            axis: Along this axis of the variable; None: `ids` broadcasts to
                its shape.
        """
        if variable is None:
            return
        if axis is not None:
            shape = [1] * len(variable.shape)
            shape[axis] = -1
            ids = np.reshape(ids, shape)
        key = (id(variable), role, ids.shape)
        if key in self._seen:
            # The layer is called again: the same weights, the same units.
            self.elements.union(self._seen[key], ids)
            return
        self._seen[key] = ids
        self.slices.append((variable, role, ids, axis, self.owner))
