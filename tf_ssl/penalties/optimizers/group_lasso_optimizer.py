"""A Keras optimizer that adds the group Lasso over structures."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.penalties.disjoint import disjoint_slices
from tf_ssl.penalties.optimizers import (
    group_lasso_arguments,
    keras_hooks,
    saved_paths,
    strengths,
)
from tf_ssl.penalties.optimizers.group_lasso_step import GroupLassoStep
from tf_ssl.penalties.optimizers.optimizer_wrapper import (
    OptimizerWrapper,
    innermost,
)
from tf_ssl.structures.structure import Structures


@keras.saving.register_keras_serializable(package="tf_ssl")
class GroupLassoOptimizer(OptimizerWrapper):
    """Minimises the loss plus a group Lasso over structures of a network.

        loss(w) + sum_s strength_s sum_u a_u ||w_u||_2

    over structures s and their units u, w_u being the weights of unit u in all
    variables, and a_u its `scale`. Wraps any Keras 3 optimizer; `model.fit` and
    custom loops need no other change. Units of which the loss has no need end
    at exactly 0.

    After each step of the optimizer follows the proximal step of the penalty,
    in the metric of that optimizer (`proximal.py`, `inner_metric.py`): zeros
    are exact, and solutions are those of the formula, under momentum and Adam
    too. `update="subgradient"` and `tf_ssl.papers` train as the papers do.

    What a unit counts is `Structure.counted`. By default each weight counts in
    one unit only, as proximal steps need: weights that make a unit count there,
    and weights that read it where they make no other. So of recurrent layers
    the columns of kernels and recurrent kernels count, and the rows of a last
    dense layer; the biases of a unit become 0 when those weights do
    (`disjoint.py`). `roles` says it otherwise: `("in",)` counts what reads a
    unit, as a stateful recurrent layer needs.

    Weights that are not trained do not count: a structure of which none is
    trained, as in a frozen base, is left out, and `skipped` names it.

    Learning rate, iterations, EMA, loss scale and gradient accumulation are
    those of the wrapped optimizer. The penalty acts only on steps on which that
    really updates. Averages of weights (EMA) see the weights after the
    penalty's step; when they replace the weights, units that were zero are
    zeroed again (sub-gradients: the threshold is applied again).

    The attribute `group_lasso` holds the penalty at the last update, and
    `callbacks.GroupLassoMetric` shows it in `fit`. The loss does not contain
    it.

    Args:
        optimizer: Keras optimizer. A LossScaleOptimizer goes inside or around;
            tg.DistributedOptimizer goes around.
        structures: `Structures`, or a list of `Structure`s.
        strength: Number >= 0, for all structures but those of kind "input"; or
            dict of these by patterns of structures' names: the first counts,
            `{"*": number}` is the number, a pattern takes inputs in only if it
            matches nothing else, and structures that none matches are left
            alone.
        update: "proximal"; "subgradient" or a `tf_ssl.papers.Subgradient`.
        roles: Roles of the slices that count, such as `("out", "in")`; None:
            those of each structure, see above.
        scale: a_u: "none" 1, "sqrt" square root of the number of weights of
            the unit, "inv_sqrt" its inverse.
        metric: "inner" or "euclidean". Of the proximal update: "euclidean"
            shrinks norms by learning rate * strength whatever the optimizer;
            with Adam that is another penalty, decoupled from the gradient.
        overlap: None, or "dykstra": proximal steps over groups that share
            weights (slow: each is a loop over all weights).
        name: String.
        variable_paths: Of the trained variables, in order, in configurations:
            leave it to `get_config`.
        **papers: Arguments of `tf_ssl.papers.Subgradient`.

    Attributes:
        skipped: (name, reason) of structures that are left out, once it is
            built.

    Raises:
        ValueError: For what is not expected above. When it is built: if no
            structure is left, if groups overlap under "proximal" (with
            `roles`, or structures of the same weights), or if a pattern of
            `strength` matches no structure.
        TypeError: If `optimizer` or `structures` are of another kind, or if
            `optimizer` has no metric and `update` is "proximal".

    Example:
        >>> import numpy as np
        >>> from tf_ssl.structures.structure import Slice, Structure
        >>> kernel = keras.Variable([[3.0, 0.3], [4.0, 0.4]], name="kernel")
        >>> units = Slice(kernel, "out", np.array([[0, 1]]))
        >>> structure = Structure("dense/units", 2, (units,))
        >>> optimizer = GroupLassoOptimizer(
        ...     keras.optimizers.SGD(0.5), [structure], strength=2.0)
        >>> optimizer.apply([tf.zeros([2, 2])], [kernel])
        >>> kernel.numpy().round(3)
        array([[2.4, 0. ],
               [3.2, 0. ]], dtype=float32)

    Reference: Yuan and Lin, "Model selection and estimation in regression with
    grouped variables", JRSS B 2006; of structures: see `tf_ssl.papers`.
    """

    def __init__(
        self,
        optimizer,
        structures,
        strength,
        update="proximal",
        *,
        roles=None,
        scale="none",
        metric="inner",
        overlap=None,
        name=None,
        variable_paths=None,
        **papers,
    ):
        update, papers = group_lasso_arguments.options(update, papers)
        group_lasso_arguments.check(
            optimizer=optimizer,
            structures=structures,
            strength=strength,
            update=update,
            papers=papers,
            roles=roles,
            scale=scale,
            metric=metric,
            overlap=overlap,
        )
        super().__init__(learning_rate=0.0, name=name)
        self.update = update
        self.papers = papers
        self.roles = None if roles is None else tuple(roles)
        self.scale = scale
        self.metric = metric
        self.overlap = overlap
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
    def structures(self):
        """The `Structures`; configurations of them until it is built."""
        return self._given.structures

    @property
    def skipped(self) -> list:
        """(name, reason) of structures that are left out, once it is built."""
        return list(self._given.skipped)

    threshold = property(lambda self: self.papers.threshold)
    threshold_by = property(lambda self: self.papers.threshold_by)
    threshold_all = property(lambda self: self.papers.threshold_all)
    clip = property(lambda self: self.papers.clip)
    double_count = property(lambda self: self.papers.double_count)

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
        takes_part = self.takes_part()
        if isinstance(value, list | tuple | np.ndarray):
            if np.shape(value) != takes_part.shape:
                raise ValueError(
                    "Invalid value for argument strength. Expected one number "
                    f"for each of {len(takes_part)} structures. Received: "
                    f"strength={value!r}"
                )
            for number in value:
                strengths.check(number)
            values = np.asarray(value, np.float64)
        else:
            strengths.check(value)
            values = strengths.of_structures(value, self.structures)
            values = np.nan_to_num(values)
            if not isinstance(value, dict):
                values = values * takes_part
        for structure, number, known in zip(
            self.structures, values, takes_part, strict=True
        ):
            if number and not known:
                raise ValueError(
                    f"Structure {strengths.name_of(structure)} was left alone "
                    "by the patterns that the optimizer was made with, and "
                    "takes no part. Make it with a pattern for it. Received: "
                    f"strength={value!r}"
                )
        self._strength.assign(values)

    def takes_part(self) -> np.ndarray:
        """Which structures `strength` was meant for, boolean `[structures]`."""
        given = self._given
        return ~np.isnan(
            strengths.of_structures(given.strength, given.structures)
        )

    def build(self, var_list):
        """Binds the structures; builds the wrapped optimizer."""
        if self.built:
            return
        # Not super().build: it would make averages and accumulators of its own
        # for the settings of the wrapped optimizer.
        keras_hooks.register(self, var_list)
        bound = self.structures
        if not isinstance(bound, Structures):
            paths = self._given.paths
            bound = [
                saved_paths.bind(s, var_list, paths)
                if isinstance(s, dict)
                else s
                for s in bound
            ]
        self._given = _Given(
            bound, self.initial_strength, [v.path for v in var_list]
        )
        trained = {}
        for i in np.flatnonzero(self.takes_part()):
            structure = self._trained(bound[i])
            if structure.counted(self.roles):
                trained[i] = structure
            else:
                reason = self._why(bound[i])
                self._given.skipped.append((structure.name, reason))
        if not trained:
            raise ValueError(
                "Invalid value for argument structures. Expected one at least "
                "that counts weights which this optimizer trains. Received: "
                + "; ".join(f"{n}: {reason}" for n, reason in self.skipped)
            )
        self._given.positions = list(trained)
        structures = list(trained.values())
        if self.update == "proximal" and self.roles is self.overlap is None:
            counted = disjoint_slices(structures)
        else:
            counted = [(s.counted(self.roles), []) for s in structures]
        self._step = GroupLassoStep(
            structures,
            counted,
            list(var_list),
            lambda variable: keras_hooks.position(self, variable),
            self,
        )
        self.inner_optimizer.build(var_list)
        self.built = True

    def _trained(self, structure):
        """Without slices of variables that this does not train."""
        trained = tuple(
            part
            for part in structure.slices
            if part.role != "stat" and keras_hooks.trains(self, part.variable)
        )
        return dataclasses.replace(structure, slices=trained)

    def _why(self, structure) -> str:
        """Why none of its weights counts."""
        roles = self.roles or structure.roles
        counted = structure.counted(roles)
        if not counted:
            return f"it has no slice with one of the roles {roles}"
        paths = dict.fromkeys(part.variable.path for part in counted)
        return f"what it counts is not trained: {', '.join(paths)}"

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads, trainable_variables=None):
        """Lets the wrapped optimizer update, with the group Lasso.

        Args:
            grads: One gradient a variable.
            trainable_variables: Defaults to those it was built with.
        """
        if trainable_variables is None:
            trainable_variables = keras_hooks.trained(self)
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
        adds = self.update == "subgradient"
        inside = adds and self.papers.clip == "inside"

        def step(update, grads, variables, learning_rate):
            if adds and not inside:
                grads = self._add_gradients(grads, variables)
            update(grads, variables, learning_rate)
            penalty = self._step.after_update(
                core, learning_rate, self._current()
            )
            if penalty is not None:
                self.group_lasso.assign(penalty)

        def average(overwrite, variables):
            dead = self._step.dead_units()
            overwrite(variables)
            if adds:
                self._step.apply_threshold()
            else:
                self._step.zero_units(dead)

        return keras_hooks.around_update(
            core, step, average, self._add_gradients if inside else None
        )

    def _add_gradients(self, grads, variables):
        grads, penalty = self._step.add_gradients(
            grads, variables, self._current()
        )
        self.group_lasso.assign(penalty)
        return grads

    def _current(self):
        """Strengths of the structures that take part."""
        return tf.gather(self._strength.value, self._given.positions)

    def penalty(self):
        """The penalty at the current weights and strengths, a scalar."""
        return self._step.penalty(self._current())

    def dead_units(self) -> dict[str, np.ndarray]:
        """Dead units of what is penalized: name -> boolean `[size]`."""
        penalized = [self.structures[i] for i in self._given.positions]
        if not isinstance(self.structures, Structures):
            return {s.name: s.dead() for s in penalized}
        dead = self.structures.dead_of_all
        return Structures(penalized, dead_of_all=dead).dead()

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
            **dataclasses.asdict(self.papers),
            "roles": None if self.roles is None else list(self.roles),
            "scale": self.scale,
            "metric": self.metric,
            "overlap": self.overlap,
            "name": self.name,
            "variable_paths": self._given.paths,
        }

    def _config(self, structure):
        if isinstance(structure, dict):
            return structure
        if self.built:
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
        if config["update"] == "proximal":
            config["clip"] = "outside"  # It meant nothing, whatever it was.
        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**config)


class _Given:
    """Arguments, out of reach of Keras' and TensorFlow's tracking of state."""

    def __init__(self, structures, strength, paths):
        if not isinstance(structures, Structures):
            structures = tuple(structures)
        self.structures = structures
        self.strength = strength
        self.paths = paths
        self.skipped = []
        self.positions = []  # of structures that take part


def find_group_lasso(optimizer) -> GroupLassoOptimizer | None:
    """The GroupLassoOptimizer that an optimizer is or wraps, or None."""
    while optimizer is not None:
        if isinstance(optimizer, GroupLassoOptimizer):
            return optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return None
