"""A baseline: pruning by magnitude."""

from __future__ import annotations

import fnmatch

import keras
import numpy as np
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.structures import groups as groups_lib
from tf_ssl.structures.kernels import find_kernels, output_layers

BY = ("weight", "filter")


class MagnitudePruning(keras.callbacks.Callback):
    """Zeroes the smallest weights, or filters, of each kernel while training.

        sparsity(t) = final_sparsity
                      * (1 - (1 - (t - begin_step) / (end_step - begin_step))^3)

    from begin_step on; constant after end_step. What is zeroed is held at zero
    until the next time masks are chosen, `frequency` steps later: then
    everything competes again, zeros with magnitude 0.

    by="filter" ranks the filters (output neurons, units) of a kernel by their
    Euclidean norm and zeroes whole ones, with their entries of a bias that has
    one entry a filter; kernels of the layers that make the model's outputs stay
    whole.
    With `structures` it zeroes their units instead: all weights that make,
    scale and read them.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input([4]), keras.layers.Dense(4)])
    >>> model.compile("sgd", "mse")
    >>> pruning = MagnitudePruning(0.75, begin_step=0, end_step=3)
    >>> x, y = np.ones([8, 4]), np.ones([8, 4])
    >>> fit = model.fit(x, y, 2, verbose=0, callbacks=[pruning])
    >>> int(np.count_nonzero(model.layers[0].kernel))
    4

    Args:
        final_sparsity: Fraction zeroed in the end, of each kernel, in [0, 1).
        begin_step: First step that zeroes something, >= 0. Steps are
            `model.optimizer.iterations`.
        end_step: Step from which the sparsity is final, > begin_step.
        by: "weight" or "filter"; None: "filter" with `structures`, else
            "weight".
        frequency: Steps between two choices of masks. Defaults to 100.
        exclude: Patterns of kernels to leave alone, as in `tf_ssl.regularize`,
            or of names of `structures`.
        structures: What `tf_ssl.find_structures(model)` returned; its inputs
            stay. None: filters of each kernel by itself.

    Raises:
        ValueError: An argument is none of these; when training begins, if a
            pattern matches nothing.

    Departure: masks follow the update of each step, so that a forward pass
    always sees zeros, and momentum is not masked.

    Reference: Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878,
    equation 1; filters: Li et al., "Pruning Filters for Efficient ConvNets",
    ICLR 2017, with Euclidean norms.
    """

    def __init__(
        self,
        final_sparsity,
        begin_step,
        end_step,
        by=None,
        frequency=100,
        exclude=(),
        structures=None,
    ):
        super().__init__()
        if not checks.is_number(final_sparsity) or not 0 <= final_sparsity < 1:
            raise ValueError(
                "Invalid value for argument final_sparsity. Expected a number "
                f"in [0, 1). Received: final_sparsity={final_sparsity!r}"
            )
        self.final_sparsity = float(final_sparsity)
        self.begin_step = checks.integer("begin_step", begin_step, 0)
        self.end_step = checks.integer("end_step", end_step, begin_step + 1)
        if by is None:
            by = "weight" if structures is None else "filter"
        checks.choice("by", by, BY)
        self.by = by
        self.frequency = checks.integer("frequency", frequency, 1)
        if isinstance(exclude, str):
            raise TypeError(
                "Invalid type for argument exclude. Expected a tuple of "
                f"patterns. Received: exclude={exclude!r}"
            )
        self.exclude = tuple(exclude)
        if structures is not None and by != "filter":
            raise ValueError(
                "Invalid value for argument by. Expected None or 'filter' with "
                f"structures, whose units go as a whole. Received: by={by!r}"
            )
        self.structures = structures
        self._masks = {}
        self._apply = None
        self._chosen_at = None

    def sparsity(self, step: int) -> float:
        """The fraction zeroed at a step."""
        if step < self.begin_step:
            return 0.0
        length = self.end_step - self.begin_step
        left = 1.0 - min((step - self.begin_step) / length, 1.0)
        return self.final_sparsity * (1.0 - left**3)

    def on_train_begin(self, logs=None):
        """Finds what may be zeroed."""
        self._chosen_at = None
        self._apply = None
        self._masks = {}
        if self.structures is not None:
            names = [s.name for s in self.structures]
            hit = {p for p in self.exclude if fnmatch.filter(names, p)}
            # A unit of the input is no filter of any layer.
            self._units = [
                s
                for s in self.structures
                if s.kind != "input"
                and not any(fnmatch.fnmatchcase(s.name, p) for p in hit)
            ]
        else:
            kernels = find_kernels(self.model)
            names = [kernel.name for kernel in kernels]
            hit = {p for p in self.exclude for k in kernels if k.matches(p)}
            if self.by == "filter":
                last = output_layers(self.model)
                kernels = [k for k in kernels if id(k.layer) not in last]
            self._kernels = [
                k for k in kernels if not any(k.matches(p) for p in hit)
            ]
        for pattern in self.exclude:
            if pattern not in hit:
                raise ValueError(
                    "Invalid value for argument exclude. Expected patterns "
                    f"that match one of {sorted(names)}. "
                    f"Received: {pattern!r}"
                )

    def on_train_batch_end(self, batch, logs=None):
        """Chooses masks when it is time; applies them."""
        iterations = self.model.optimizer.iterations
        step = int(keras.ops.convert_to_numpy(iterations))
        if step >= self.begin_step and self._is_time(step):
            self._chosen_at = step
            self._choose(self.sparsity(step))
        if self._apply is not None:
            self._apply()

    def _is_time(self, step: int) -> bool:
        last = self._chosen_at
        if last is None:
            return True
        if last >= self.end_step:
            return False
        return step - last >= self.frequency or step >= self.end_step

    def _choose(self, sparsity: float) -> None:
        if self.structures is not None:
            masks = self._unit_masks(sparsity)
        else:
            masks = self._kernel_masks(sparsity)
        if self._apply is not None and masks.keys() == self._masks.keys():
            for key, (_, keep) in masks.items():
                self._masks[key][1].assign(keep)
            return
        self._masks = {
            key: (variable, tf.Variable(keep, trainable=False))
            for key, (variable, keep) in masks.items()
        }
        self._apply = tf.function(self._multiply)

    def _multiply(self) -> None:
        for variable, keep in self._masks.values():
            variable.assign(variable * tf.cast(keep, variable.dtype))

    def _kernel_masks(self, sparsity) -> dict:
        """By id: (variable, True where a weight stays)."""
        masks = {}
        for kernel in self._kernels:
            variable = kernel.variable
            value = keras.ops.convert_to_numpy(variable)
            if self.by == "weight":
                keep = _keep_largest(np.abs(value), sparsity)
                masks[id(variable)] = variable, keep
                continue
            part = groups_lib.partition(
                "filter", value.shape, kernel.kind, kernel.conv_groups
            )
            filters = _keep_largest(part.norms(value), sparsity)
            masks[id(variable)] = variable, part.spread(filters)
            bias = getattr(kernel.layer, "bias", None)
            if bias is not None and tuple(bias.shape) == (filters.size,):
                masks[id(bias)] = bias, filters.reshape(-1)
        return masks

    def _unit_masks(self, sparsity) -> dict:
        """By id: (variable, True where a weight stays)."""
        masks = {}
        for structure in self._units:
            keep = _keep_largest(structure.norms(), sparsity)
            (units,) = np.nonzero(~keep)
            for part in structure.of(("out", "norm", "in")):
                variable = part.variable
                shape = tuple(variable.shape)
                stays = np.broadcast_to(~part.mask(units), shape)
                if id(variable) in masks:  # of another structure too
                    stays = stays & masks[id(variable)][1]
                masks[id(variable)] = variable, stays
        return masks


def _keep_largest(values: np.ndarray, sparsity: float) -> np.ndarray:
    """True but for that fraction of the smallest; of equals, the first go."""
    count = round(sparsity * values.size)
    keep = np.ones(values.size, bool)
    keep[np.argsort(values, axis=None, kind="stable")[:count]] = False
    return keep.reshape(values.shape)
