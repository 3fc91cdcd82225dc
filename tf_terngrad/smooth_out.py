"""SmoothOut: training at weights with noise, for minima that are flat."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Callable

import tensorflow as tf

from tf_terngrad import checks, train_step

NOISES = ("uniform", "normal")
ADAPTIVES = ("none", "weight", "filter")

# Scales and shifts of normalization: the authors' code leaves them out too.
_NORMALIZATION = ("*/gamma", "*/beta", "gamma", "beta")


class SmoothOut:
    """Noise on weights while the gradient is computed.

    Each step: weights are saved, noise is added, the gradient is computed,
    the saved weights are put back, to the bit, and then updated. Noise n of a
    weight w, with u uniform in (-1, 1) or standard normal:

        adaptive="none":    n = a * u
        adaptive="weight":  n = a * |w| * u
        adaptive="filter":  n = a * ||w_f|| * u_f / ||u_f||, f the filter of w
                            (last axis; variables of one axis are one filter)

    Weights that are exactly 0 get none, so that zeros stay what they are.
    Noise depends on the seed, the step, the variable and the part of the batch
    alone: all workers have the same, and a restart repeats it. Evaluation,
    checkpoints and callbacks see weights without noise.

    Args:
        a: Float >= 0: how much noise. The authors' example for AlexNet: 0.006.
        noise: "uniform" or "normal".
        adaptive: "none", "weight" or "filter" (AdaSmoothOut).
        schedule: Function from the step, an int64 tensor, to a factor of `a`,
            such as `lambda step: 1 / (1 + step / 1000)`. None: 1.
        ghost_batches: Parts of a batch: each has noise (and statistics of
            normalization) of its own, their gradients are averaged.
        exclude: Patterns of variable paths without noise; None: scales and
            shifts of normalization.
        seed: Integer >= 0, the same on all workers.

    Raises:
        ValueError: An argument is none of these.

    Example:
        model.compile(optimizer, loss, jit_compile=False)
        tg.SmoothOut(0.01, schedule=lambda step: 0.999**step).attach(model)
        model.fit(batches)

        # Or, in a loop of your own:
        smoothing = tg.SmoothOut(0.01)
        with smoothing.noise(model.trainable_variables, step):
            with tf.GradientTape() as tape:
                loss = loss_fn(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    Departure: the authors subtract the noise again, which moves one float in
    ten by a bit, and which workers of another batch order draw anew.

    Reference: Wen et al., "SmoothOut: Smoothing Out Sharp Minima to Improve
    Generalization in Deep Learning", arXiv 1805.07898, algorithms 1 and 2.
    """

    def __init__(
        self,
        a: float,
        noise: str = "uniform",
        adaptive: str = "none",
        schedule: Callable | None = None,
        ghost_batches: int = 1,
        exclude=None,
        seed: int = 0,
    ):
        is_number = isinstance(a, int | float) and not isinstance(a, bool)
        if not is_number or not 0 <= a < math.inf:
            raise ValueError(
                "Invalid value for argument a. Expected a finite number >= 0. "
                f"Received: a={a!r}"
            )
        checks.choice("noise", noise, NOISES)
        checks.choice("adaptive", adaptive, ADAPTIVES)
        checks.integer("ghost_batches", ghost_batches, 1)
        checks.integer("seed", seed, 0)
        if schedule is not None and not callable(schedule):
            raise ValueError(
                "Invalid value for argument schedule. Expected a function of "
                f"the step, or None. Received: schedule={schedule!r}"
            )
        self.a = float(a)
        self.kind = noise
        self.adaptive = adaptive
        self.schedule = schedule
        self.ghost_batches = ghost_batches
        self.exclude = _NORMALIZATION if exclude is None else tuple(exclude)
        self.seed = seed

    @contextlib.contextmanager
    def noise(self, variables, step, part=0):
        """Adds noise within the block, and puts the weights back after it.

        Args:
            variables: Keras variables.
            step: Integer or integer tensor: of the training.
            part: Likewise: of the batch.
        """
        step, part = tf.cast(step, tf.int64), tf.cast(part, tf.int64)
        noisy = [
            (i, variable)
            for i, variable in enumerate(variables)
            if self.a and not self._is_excluded(variable)
        ]
        saved = [tf.identity(variable.value) for _, variable in noisy]
        for (i, variable), weights in zip(noisy, saved, strict=True):
            amount = self._amount(weights, i, step, part)
            variable.assign(weights + tf.cast(amount, weights.dtype))
        try:
            yield
        finally:
            for (_, variable), weights in zip(noisy, saved, strict=True):
                variable.assign(weights)

    def attach(self, model) -> None:
        """Lets `model.fit` train with the noise. Call it after `compile`.

        Args:
            model: Compiled Keras model; the size of its batches must be a
                multiple of `ghost_batches`.

        Raises:
            ValueError: It has a `train_step` of its own.
        """
        train_step.attach(
            model, self, "Use the context smoothing.noise(...) in it."
        )

    def train_step(self, model, data):
        """Keras' own train_step, with noise.

        Args:
            model: That it is attached to.
            data: What `model.fit` gives a step.
        """
        variables = model.trainable_variables
        step = tf.convert_to_tensor(model.optimizer.iterations)

        def update(gradients):
            averages = [_average(part) for part in zip(*gradients, strict=True)]
            model.optimizer.apply(averages, variables)

        return train_step.run(
            model,
            data,
            self.ghost_batches,
            update,
            lambda part: self.noise(variables, step, part),
        )

    def _is_excluded(self, variable):
        return any(
            fnmatch.fnmatchcase(variable.path, pattern)
            for pattern in self.exclude
        )

    def _amount(self, weights, index, step, part):
        """The noise of one variable, float32 or float64."""
        dtype = tf.float64 if weights.dtype == tf.float64 else tf.float32
        # Philox with the key (seed, step) and a counter for each element; part
        # and variable are folded into the key, far from each other.
        key = tf.stack(
            [
                tf.constant(self.seed, tf.int64) + index * (1 << 32),
                step + part * (1 << 40),
            ]
        )
        draw = (
            tf.random.stateless_uniform
            if self.kind == "uniform"
            else tf.random.stateless_normal
        )
        arguments = (
            {"minval": -1, "maxval": 1} if self.kind == "uniform" else {}
        )
        u = draw(tf.shape(weights), key, dtype=dtype, alg="philox", **arguments)
        weights = tf.cast(weights, dtype)
        factor = tf.constant(self.a, dtype)
        if self.schedule is not None:
            factor *= tf.cast(self.schedule(step), dtype)
        if self.adaptive == "weight":
            u *= tf.abs(weights)
        elif self.adaptive == "filter":
            u *= tf.math.divide_no_nan(_lengths(weights), _lengths(u))
        return tf.where(weights == 0, tf.zeros((), dtype), factor * u)


def smooth(model, a: float, **options) -> SmoothOut:
    """Attaches a `SmoothOut` to a compiled model; see its arguments.

    Args:
        model: Compiled Keras model.
        a: How much noise.
        **options: Of `SmoothOut`.

    Returns:
        The `SmoothOut`.

    Raises:
        ValueError: See `SmoothOut` and its `attach`.
    """
    smoothing = SmoothOut(a, **options)
    smoothing.attach(model)
    return smoothing


def _lengths(values):
    """Euclidean length of each filter."""
    axes = tuple(range(max(1, len(values.shape) - 1)))
    return tf.sqrt(tf.reduce_sum(tf.square(values), axes, keepdims=True))


def _average(gradients):
    """Of one variable over the parts; None where none has one."""
    if any(gradient is None for gradient in gradients):
        return None
    if len(gradients) == 1:
        return gradients[0]
    # Sparse ones of different rows become dense: they are added anyway.
    return tf.add_n([tf.convert_to_tensor(g) for g in gradients]) / len(
        gradients
    )
