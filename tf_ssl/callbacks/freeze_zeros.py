"""Fine-tuning with the zeros held."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.structures.structure import Structure, squares


class FreezeZeros(keras.callbacks.Callback):
    """Weights that are zero when `fit` begins stay exactly zero.

    Third stage of the paper's recipe, after training with the group Lasso:
    fine-tuning without it. After every update, inside the compiled step and
    whatever the optimizer, these weights are set to 0 again (as variable
    constraints, which Keras optimizers apply; constraints that a layer has are
    applied before); momentum moves them no more. Also after weights are
    replaced by their averages (EMA) at the end of `fit`.

    - No structures, by="element": each zero of a trainable kernel (a variable
      of rank 2 or more).
    - No structures, by="group": each all-zero filter (last axis) and column
      (all other axes) of a trainable kernel, as the rows and columns of its
      matrix in the paper.
    - Structures, by="element": each zero of their kernels, in slices of the
      roles that they count.
    - Structures, by="group": of each unit, the weights of a role ("out": those
      that make it, "in": those that read it) where all of them are 0.

    Features of the model's inputs are not frozen, and variables that are not
    trained stay by themselves. A bias that happens to be zero is not pruned: it
    stays only with its unit.

    Args:
        structures: List of `Structure`s of the model, or None: all trainable
            kernels.
        by: "element" (the paper's DISCONNECTED_ELTWISE) or "group"
            (DISCONNECTED_GRPWISE). Defaults to "element".

    Raises:
        ValueError: If `by` is none of these; when `fit` begins, if a
            structure's variable is not one of the model's.
        TypeError: If `structures` are no `Structure`s.

    Example:
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        model.fit(dataset, callbacks=[tf_ssl.callbacks.FreezeZeros()])

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016 (connectivity_mode of its code).
    """

    def __init__(self, structures=None, by: str = "element"):
        super().__init__()
        checks.choice("by", by, ("element", "group"))
        is_list = isinstance(structures, list | tuple)
        if structures is not None and not (
            is_list and all(isinstance(s, Structure) for s in structures)
        ):
            raise TypeError(
                "Invalid type for argument structures. Expected None or a list "
                "of tf_ssl.Structure, as find_structures(model) returns. "
                f"Received: structures={structures!r}"
            )
        self.structures = structures
        self.by = by
        self._constraints = []

    def on_train_begin(self, logs=None):
        """Finds the zeros; constrains their variables."""
        for variable, zeros in self._zeros():
            constraint = _KeepZero(variable, zeros)
            variable.constraint = constraint
            self._constraints.append(constraint)
        # A function traced by an earlier fit does not hold the constraints.
        if self._constraints:
            self.model.make_train_function(force=True)

    def on_train_end(self, logs=None):
        """Takes the constraints off."""
        for constraint in self._constraints:
            constraint.remove()
        if self._constraints:
            self.model.train_function = None
        self._constraints = []

    def _zeros(self):
        """Variables, and where they are zero and are to stay so."""
        variables = self.model.trainable_variables
        if self.structures is None:
            find = _zeros if self.by == "element" else _zero_rows_and_columns
            found = [(v, find(v)) for v in variables if len(v.shape) > 1]
        else:
            known = {id(v) for v in self.model.variables}
            for structure in self.structures:
                for part in structure.of():
                    if id(part.variable) not in known:
                        raise ValueError(
                            f"Structure {structure.name} has weights in the "
                            f"variable {part.variable.path}, which is not among"
                            f" the {len(known)} variables of the model."
                        )
            trained = {id(v) for v in variables}
            found = self._zeros_of_structures(trained)
        return [(variable, zeros) for variable, zeros in found if zeros.any()]

    def _zeros_of_structures(self, trained):
        found: dict[int, tuple] = {}
        for structure in self.structures:
            if structure.kind == "input":
                continue
            counted = structure.counted()
            for part in structure.of():
                is_kernel = part.units.ndim > 1 and not part.is_bias
                if id(part.variable) not in trained:
                    continue
                if self.by == "element" and not is_kernel:
                    continue
                owned = part.units >= 0
                if self.by == "group":
                    alike = [s for s in counted if s.role == part.role]
                    norms = squares(alike or counted, structure.size)
                    owned &= part.mask(np.flatnonzero(norms == 0))
                zeros = _zeros(part.variable) & owned
                _, before = found.get(id(part.variable), (None, False))
                found[id(part.variable)] = (part.variable, zeros | before)
        return list(found.values())


class _KeepZero:
    """Sets weights of a variable to 0, after the constraint it had."""

    def __init__(self, variable, zeros):
        self._variable = variable
        self._before = variable.constraint
        self._zeros = tf.constant(zeros)

    def __call__(self, value):
        if self._before is not None:
            value = self._before(value)
        value = tf.convert_to_tensor(value)
        return tf.where(self._zeros, tf.zeros([], value.dtype), value)

    def remove(self):
        # The averages that end a fit with EMA know no constraint.
        self._variable.assign(
            tf.where(
                self._zeros,
                tf.zeros([], self._variable.dtype),
                self._variable.value,
            )
        )
        self._variable.constraint = self._before


def _zeros(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable) == 0


def _zero_rows_and_columns(variable) -> np.ndarray:
    """Weights in all-zero rows or columns of the lowered matrix."""
    zeros = _zeros(variable)
    filters = zeros.all(axis=tuple(range(zeros.ndim - 1)), keepdims=True)
    columns = zeros.all(axis=-1, keepdims=True)
    return filters | columns | np.zeros_like(zeros)
