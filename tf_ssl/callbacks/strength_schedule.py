"""The strength of the group Lasso over epochs, or steered to a budget."""

from __future__ import annotations

import math

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.callbacks.group_lasso_metric import group_lasso_of, mean_strength
from tf_ssl.penalties.optimizers import strengths


class StrengthSchedule(keras.callbacks.Callback):
    """Sets the strength of a GroupLassoOptimizer by epochs or steps.

    Adds `strength` (the mean over structures) to the logs of each epoch.

    Args:
        schedule: Function from the epoch, or the number of updates so far
            (0, 1, ...), to a number >= 0; a
            keras.optimizers.schedules.LearningRateSchedule is one.
        every: "epoch" or "step". Defaults to "epoch". With
            steps_per_execution=k steps are seen k at a time.
        relative: True: the schedule gives a multiple of the strengths that the
            optimizer was made with; False: the strength itself, as a number or
            as a dict by patterns. Defaults to True.

    Raises:
        ValueError: If an argument, or what the schedule returns, is none of
            these.
        TypeError: If `schedule` cannot be called; when `fit` begins, if the
            model has no GroupLassoOptimizer.

    Example:
        # Full strength after a warm-up of five epochs.
        StrengthSchedule(lambda epoch: min(1.0, epoch / 5))
    """

    def __init__(self, schedule, every: str = "epoch", relative: bool = True):
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                "Invalid type for argument schedule. Expected a function from "
                f"an epoch or step to a number. Received: schedule={schedule!r}"
            )
        checks.choice("every", every, ("epoch", "step"))
        self.schedule = schedule
        self.every = every
        self.relative = relative

    def on_train_begin(self, logs=None):
        """Finds the optimizer."""
        self._optimizer = group_lasso_of(self.model, type(self).__name__)
        self._base = _initial(self._optimizer)

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the strength of the epoch."""
        if self.every == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the strength of the step."""
        if self.every == "step":
            self._set(int(self._optimizer.iterations))

    def on_epoch_end(self, epoch, logs=None):
        """Adds the strength to `logs`."""
        if logs is not None:
            logs["strength"] = mean_strength(self._optimizer)

    def _set(self, when):
        value = self.schedule(when)
        if not isinstance(value, dict):
            value = np.asarray(value).item()
        if not self.relative:
            self._optimizer.strength = value
            return
        if not checks.is_number(value) or value < 0:
            raise ValueError(
                "Invalid value from schedule. Expected a finite number >= 0. "
                f"Received: {value!r} for {self.every} {when}"
            )
        self._optimizer.strength = self._base * value


class StrengthController(keras.callbacks.Callback):
    """Steers the strength of a GroupLassoOptimizer to a budget.

    A plan leads in a straight line from what is measured when `fit` begins to
    `target` at the end of `epochs`. At the end of each epoch (or of `every`
    batches)

        strength <- strength * exp(gain * (plan - measured))

    but by a factor of `max_change` at most; within `tolerance` of the plan
    nothing changes. After `epochs` it holds the target. All strengths change
    by one factor; start from a strength that is rather too small, for units do
    not come back easily.

    Adds `strength` (the mean over structures) and what is measured, named
    `unit_sparsity` or as the function, to the logs of each epoch.

    Args:
        target: Number in [0, 1]: what `measure` is to be.
        measure: "sparsity": dead units of the structures that the optimizer
            penalizes as a fraction of all; or a function from the model to a
            number that grows with sparsity, such as the fraction of parameters
            or of multiply-adds that can go. Defaults to "sparsity".
        epochs: Int >= 1: when the target is to be reached; None: all epochs of
            `fit`, counted from 0 whatever its initial_epoch.
        gain: Number > 0. Defaults to 4: a lag of 0.1 behind the plan makes the
            strength 1.5 times as large. Smaller where it swings.
        max_change: Number > 1. Defaults to 2.
        tolerance: Number >= 0. Defaults to 0.005.
        every: None: once an epoch; or an integer >= 1 of batches. Each measure
            reads the weights.

    Raises:
        ValueError: If an argument is none of these; when `fit` begins, if all
            strengths are 0.
        TypeError: If `measure` is no function; when `fit` begins, if the model
            has no GroupLassoOptimizer.

    Example:
        # Seven of ten units are to go within 20 epochs.
        StrengthController(0.7, epochs=20)
    """

    def __init__(
        self,
        target: float,
        measure="sparsity",
        epochs: int | None = None,
        gain: float = 4.0,
        max_change: float = 2.0,
        tolerance: float = 0.005,
        every: int | None = None,
    ):
        super().__init__()
        self.target = checks.fraction("target", target)
        if measure != "sparsity" and not callable(measure):
            raise TypeError(
                "Invalid type for argument measure. Expected 'sparsity' or a "
                "function from the model to a number. Received: "
                f"measure={measure!r}"
            )
        if epochs is not None:
            checks.integer("epochs", epochs, 1)
        if every is not None:
            checks.integer("every", every, 1)
        _check_above("gain", gain, 0)
        _check_above("max_change", max_change, 1)
        checks.not_negative("tolerance", tolerance)
        self.measure = measure
        self.epochs = epochs
        self.gain = gain
        self.max_change = max_change
        self.tolerance = tolerance
        self.every = every

    def on_train_begin(self, logs=None):
        """Measures where it starts."""
        self._optimizer = group_lasso_of(self.model, type(self).__name__)
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if mean_strength(self._optimizer) == 0:
            raise ValueError(
                "StrengthController multiplies strengths and cannot start "
                "from 0. Make the GroupLassoOptimizer with strength > 0."
            )
        self._start = self._measured = self._measure()
        self._epoch = 0
        self._seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._epoch = epoch
        self._seen = 0

    def on_train_batch_end(self, batch, logs=None):
        """Adjusts the strength, if `every` batches are over."""
        steps = self.params.get("steps")
        if self.every is None or batch + 1 - self._seen < self.every:
            return
        self._seen = batch + 1
        part = self._seen / steps if steps else 0.0
        self._adjust(self._epoch + part)

    def on_epoch_end(self, epoch, logs=None):
        """Adjusts the strength, if that is done once an epoch; logs."""
        if self.every is None:
            self._adjust(epoch + 1)
        if logs is not None:
            logs["strength"] = mean_strength(self._optimizer)
            logs[self._measure_name()] = self._measured

    def _adjust(self, epochs_done):
        self._measured = self._measure()
        done = min(1.0, epochs_done / (self.epochs or self.params["epochs"]))
        plan = self._start + (self.target - self._start) * done
        lag = plan - self._measured
        if abs(lag) <= self.tolerance:
            return
        limit = math.log(self.max_change)
        exponent = self.gain * lag
        factor = math.exp(max(-limit, min(limit, exponent)))
        strength = keras.ops.convert_to_numpy(self._optimizer.strength)
        self._optimizer.strength = strength * factor

    def _measure(self) -> float:
        if self.measure == "sparsity":
            dead = self._optimizer.dead_units()
            return float(np.mean(np.concatenate(list(dead.values()))))
        return float(self.measure(self.model))

    def _measure_name(self) -> str:
        if self.measure == "sparsity":
            return "unit_sparsity"
        return getattr(self.measure, "__name__", "measure")


def _initial(optimizer) -> np.ndarray:
    values = strengths.of_structures(
        optimizer.initial_strength, optimizer.structures
    )
    return np.nan_to_num(values)


def _check_above(name, value, bound):
    if not checks.is_number(value) or value <= bound:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a finite number > "
            f"{bound}. Received: {name}={value!r}"
        )
