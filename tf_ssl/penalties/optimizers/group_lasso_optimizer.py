"""A Keras optimizer that adds the group Lasso over structures."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.penalties.optimizers import (
    group_lasso_arguments,
    saved_paths,
    strengths,
)
from tf_ssl.penalties.optimizers.group_lasso_step import GroupLassoStep
from tf_ssl.penalties.optimizers.optimizer_wrapper import (
    OptimizerWrapper,
    innermost,
    methods_replaced,
)


@keras.saving.register_keras_serializable(package="tf_ssl")
class GroupLassoOptimizer(OptimizerWrapper):
    """Minimises the loss plus a group Lasso over structures of a network.

        loss(w) + sum_s strength_s sum_u a_u ||w_u||_2

    over structures s and their units u, w_u being the weights of unit u in all
    variables, and a_u its `scale`. Wraps any Keras 3 optimizer; `model.fit` and
    custom loops need no other change. Units of which the loss has no need end
    at exactly 0.

    With `update="subgradient"`, as the papers, strength * w / ||w_u|| is added
    to the gradients, 0 at a zero unit, and small weights are set to 0 after
    each step. With `update="proximal"` the proximal step of the penalty follows
    the step of the optimizer, in the metric of that optimizer (`proximal.py`,
    `inner_metric.py`): zeros are exact, and solutions are those of the formula
    above, under momentum and Adam too; `threshold` has no part in it.

    Learning rate, iterations, EMA, loss scale and gradient accumulation are
    those of the wrapped optimizer. Penalty and threshold act only on steps on
    which that really updates. Averages of weights (EMA) see the weights after
    the penalty's step; when they replace the weights, the threshold is applied
    again (proximal: units that were zero are zeroed again).

    The attribute `group_lasso` holds the penalty at the last update, and
    `callbacks.GroupLassoMetric` shows it in `fit`. The loss does not contain
    it.

    Args:
        optimizer: Keras optimizer. A LossScaleOptimizer goes inside or around;
            tg.DistributedOptimizer goes around.
        structures: List of `Structure`s, of variables that this trains.
        strength: Number >= 0, for all structures but those of kind "input"; or
            dict of these by patterns of structures' names (the first that
            matches counts; structures that none matches
            are left alone).
        update: "subgradient" or "proximal".
        threshold: Number >= 0. See `threshold_by`; 0 turns it off.
        threshold_by: "element": weights with |w| below `threshold` become 0, in
            slices with role "out" and "in" (a bias only with its unit).
            "group": units with a norm of at most `threshold` become 0.
        roles: Roles of the slices that count, such as `("out", "in")`; None:
            those of each structure. See `Structure.counted`.
        scale: a_u: "none" 1, "sqrt" square root of the number of weights of
            the unit, "inv_sqrt" its inverse.
        clip: "outside": the penalty's gradient is added after clipnorm,
            global_clipnorm or clipvalue of the wrapped optimizer (SSL);
            "inside": before (ISS). Of sub-gradients.
        metric: "inner" or "euclidean". Of the proximal update: "euclidean"
            shrinks norms by learning rate * strength whatever the optimizer;
            with Adam that is another penalty, decoupled from the gradient.
        overlap: None, or "dykstra": proximal steps over groups that share
            weights (slow: each is a loop over all weights).
        threshold_all: Elements of every trainable variable are thresholded, as
            in the papers' code.
        double_count: A weight that two slices give to the same unit counts
            twice, as in the paper on ISS.
        name: String.
        variable_paths: Of the trained variables, in order, in configurations:
            leave it to `get_config`.

    Raises:
        ValueError: For what is not expected above. When it is built: if a
            structure's variable is not among those it trains, if groups
            overlap under "proximal", or if a pattern of `strength` matches no
            structure.
        TypeError: If `optimizer` or `structures` are of another kind, or if
            `optimizer` has no metric and `update` is "proximal".

    Example:
        >>> import numpy as np
        >>> from tf_ssl.structures.structure import Slice, Structure
        >>> kernel = keras.Variable([[3.0, 0.3], [4.0, 0.4]], name="kernel")
        >>> units = Slice(kernel, "out", np.array([[0, 1]]))
        >>> structure = Structure("dense/units", 2, (units,))
        >>> optimizer = GroupLassoOptimizer(
        ...     keras.optimizers.SGD(0.5), [structure], 2.0, update="proximal")
        >>> optimizer.apply([tf.zeros([2, 2])], [kernel])
        >>> kernel.numpy().round(3)
        array([[2.4, 0. ],
               [3.2, 0. ]], dtype=float32)

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016, equation 3; Wen et al., "Learning Intrinsic Sparse
    Structures within Long Short-Term Memory", ICLR 2018.
    """

    def __init__(
        self,
        optimizer,
        structures,
        strength,
        update="subgradient",
        threshold=1e-4,
        threshold_by="element",
        roles=None,
        scale="none",
        clip="outside",
        metric="inner",
        overlap=None,
        threshold_all=False,
        double_count=False,
        name=None,
        variable_paths=None,
    ):
        group_lasso_arguments.check(
            optimizer=optimizer,
            structures=structures,
            strength=strength,
            update=update,
            threshold=threshold,
            threshold_by=threshold_by,
            roles=roles,
            scale=scale,
            clip=clip,
            metric=metric,
            overlap=overlap,
            threshold_all=threshold_all,
            double_count=double_count,
        )
        super().__init__(learning_rate=0.0, name=name)
        self.update = update
        self.threshold = threshold
        self.threshold_by = threshold_by
        self.roles = None if roles is None else tuple(roles)
        self.scale = scale
        self.clip = clip
        self.metric = metric
        self.overlap = overlap
        self.threshold_all = threshold_all
        self.double_count = double_count
        self._given = _Given(structures, strength, variable_paths)
        self._step = None
        # Here, not in build: schedules may set it before the first step.
        self._strength = self.add_variable(
            shape=(len(structures),), dtype="float64", name="strength"
        )
        self.group_lasso = self.add_variable(
            shape=(), dtype="float32", name="group_lasso"
        )
        self.inner_optimizer = optimizer
        self.strength = strength

    @property
    def structures(self) -> tuple:
        """The `Structure`s; configurations of them until it is built."""
        return self._given.structures

    @property
    def initial_strength(self):
        """The strength that it was made with: a number or a dict."""
        return self._given.strength

    @property
    def strength(self):
        """Variable `[structures]`; set a number, a dict or one for each."""
        return self._strength

    @strength.setter
    def strength(self, value):
        names = [strengths.name_of(s) for s in self.structures]
        takes_part = self.takes_part()
        if isinstance(value, list | tuple | np.ndarray):
            if np.shape(value) != (len(names),):
                raise ValueError(
                    "Invalid value for argument strength. Expected one number "
                    f"for each of {len(names)} structures. Received: "
                    f"strength={value!r}"
                )
            for number in value:
                strengths.check(number)
            values = np.asarray(value, np.float64)
        else:
            strengths.check(value)
            values = strengths.of_structures(value, names)
            if not isinstance(value, dict):
                values = values * takes_part
        for name, number, known in zip(names, values, takes_part, strict=True):
            if number and not known:
                raise ValueError(
                    f"Structure {name} was left alone by the patterns that the "
                    "optimizer was made with, and takes no part. Make it with "
                    "a pattern for it. Received: strength="
                    f"{value!r}"
                )
        self._strength.assign(values)

    def takes_part(self) -> np.ndarray:
        """Which structures take part, boolean `[structures]`."""
        return np.array(
            [
                strengths.takes_part(self.initial_strength, structure)
                for structure in self.structures
            ]
        )

    def build(self, var_list):
        """Binds the structures; builds the wrapped optimizer."""
        if self.built:
            return
        # Not super().build: it would make averages and accumulators of its own
        # for the settings of the wrapped optimizer.
        for i, variable in enumerate(var_list):
            self._trainable_variables_indices[self._var_key(variable)] = i
        self._trainable_variables.extend(var_list)
        bound = [self._bind(s, var_list) for s in self.structures]
        self._given = _Given(
            bound, self.initial_strength, [v.path for v in var_list]
        )
        self._step = GroupLassoStep(
            [
                self._trained(structure)
                for structure, known in zip(
                    bound, self.takes_part(), strict=True
                )
                if known
            ],
            list(var_list),
            self._get_variable_index,
            self,
        )
        self.inner_optimizer.build(var_list)
        self.built = True

    def _bind(self, structure, var_list):
        if isinstance(structure, dict):
            return saved_paths.bind(structure, var_list, self._given.paths)
        return structure

    def _trained(self, structure):
        """Without slices of variables that this does not train."""
        counted = structure.counted(self.roles)
        if not counted:
            raise ValueError(
                f"Structure {structure.name} has no slice with one of the "
                f"roles {self.roles or structure.roles}."
            )
        for part in counted:
            if not self._trains(part.variable):
                raise ValueError(
                    f"Structure {structure.name} counts weights of the "
                    f"variable {part.variable.path}, which is not among the "
                    f"{len(self._trainable_variables)} variables that this "
                    "optimizer trains. Find the structures of the model that "
                    "is trained, or leave this one out."
                )
        trained = tuple(
            part
            for part in structure.slices
            if part.role != "stat" and self._trains(part.variable)
        )
        return dataclasses.replace(structure, slices=trained)

    def _trains(self, variable):
        return self._var_key(variable) in self._trainable_variables_indices

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads, trainable_variables=None):
        """Lets the wrapped optimizer update, with the group Lasso.

        Args:
            grads: One gradient a variable.
            trainable_variables: Defaults to those it was built with.
        """
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        with self._inside_the_update():
            self.inner_optimizer.apply(grads, variables)

    def _inside_the_update(self):
        """Puts the group Lasso into the update of the innermost optimizer.

        There, and not around `apply`: it knows which steps update (gradient
        accumulation, skipped steps of LossScaleOptimizer), what is clipped and
        unscaled, and when averages of weights are taken.
        """
        core = innermost(self.inner_optimizer)
        prepare = core._backend_apply_gradients
        update = core._backend_update_step
        overwrite = core._overwrite_model_variables_with_average_value

        def apply_gradients(grads, trainable_variables):
            if self.update == "subgradient" and self.clip == "inside":
                grads = self._add_gradients(grads, trainable_variables)
            prepare(grads, trainable_variables)

        def update_step(grads, trainable_variables, learning_rate):
            if self.update == "subgradient" and self.clip == "outside":
                grads = self._add_gradients(grads, trainable_variables)
            update(grads, trainable_variables, learning_rate)
            penalty = self._step.after_update(
                core, learning_rate, self._current()
            )
            if penalty is not None:
                self.group_lasso.assign(penalty)

        def overwrite_with_averages(trainable_variables):
            dead = self._step.dead_units()
            overwrite(trainable_variables)
            if self.update == "proximal":
                self._step.zero_units(dead)
            else:
                self._step.apply_threshold()

        return methods_replaced(
            core,
            {
                "_backend_apply_gradients": apply_gradients,
                "_backend_update_step": update_step,
                "_overwrite_model_variables_with_average_value": (
                    overwrite_with_averages
                ),
            },
        )

    def _add_gradients(self, grads, variables):
        grads, penalty = self._step.add_gradients(
            grads, variables, self._current()
        )
        self.group_lasso.assign(penalty)
        return grads

    def _current(self):
        """Strengths of the structures that take part."""
        positions = np.flatnonzero(self.takes_part())
        return tf.gather(self._strength.value, positions)

    def penalty(self):
        """The penalty at the current weights and strengths, a scalar."""
        return self._step.penalty(self._current())

    def finalize_variable_values(self, var_list):
        """Lets the wrapped optimizer write its averages; zeroes again."""
        with self._inside_the_update():
            self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        """See `keras.optimizers.Optimizer.get_config`."""
        strength = self.initial_strength
        return {
            "optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "structures": [self._config(s) for s in self.structures],
            "strength": dict(strength)
            if isinstance(strength, dict)
            else float(strength),
            "update": self.update,
            "threshold": self.threshold,
            "threshold_by": self.threshold_by,
            "roles": None if self.roles is None else list(self.roles),
            "scale": self.scale,
            "clip": self.clip,
            "metric": self.metric,
            "overlap": self.overlap,
            "threshold_all": self.threshold_all,
            "double_count": self.double_count,
            "name": self.name,
            "variable_paths": self._given.paths,
        }

    def _config(self, structure):
        if isinstance(structure, dict):
            return structure
        if self.built and strengths.takes_part(
            self.initial_strength, structure
        ):
            return self._trained(structure).get_config()
        # Moving statistics are not among the variables that `build` gets.
        trained = tuple(
            part
            for part in structure.slices
            if part.role != "stat" and part.variable.trainable
        )
        return dataclasses.replace(structure, slices=trained).get_config()

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        config = dict(config)
        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**config)


class _Given:
    """Arguments, out of reach of Keras' and TensorFlow's tracking of state."""

    def __init__(self, structures, strength, paths):
        self.structures = tuple(structures)
        self.strength = strength
        self.paths = paths


def find_group_lasso(optimizer) -> GroupLassoOptimizer | None:
    """The GroupLassoOptimizer that an optimizer is or wraps, or None."""
    while optimizer is not None:
        if isinstance(optimizer, GroupLassoOptimizer):
            return optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return None
