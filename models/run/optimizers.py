"""Optimizers and learning rate schedules by name."""

from __future__ import annotations

from collections.abc import Sequence

import keras

NAMES = (
    *("sgd", "momentum", "nesterov"),
    *("adam", "adamw", "adadelta", "lamb"),
)
SCHEDULES = ("constant", "polynomial", "cosine", "exponential", "multistep")

# Decay acts on kernels, as in the paper: not on biases, nor on the scales and
# shifts of normalization.
_NO_DECAY = ["bias", "gamma", "beta"]


def schedule(
    name: str,
    learning_rate: float,
    steps: int,
    decay_rate: float = 0.1,
    decay_steps: int | None = None,
    milestones: Sequence[int] = (),
    hold_steps: int = 0,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns a learning rate for every update.

    - "constant": lr
    - "polynomial": lr * sqrt(1 - t / steps), the paper's
    - "cosine": lr * (1 + cos(pi * t / steps)) / 2
    - "exponential": lr * decay_rate^floor(max(0, t - hold_steps) /
      decay_steps)
    - "multistep": lr * decay_rate^(number of milestones <= t)

    Args:
      name: one of `SCHEDULES`.
      learning_rate: at the start, lr > 0.
      steps: number of updates of the whole run.
      decay_rate: of "exponential" and "multistep", in (0, 1].
      decay_steps: updates between the steps down of "exponential"; None is
        `steps`.
      milestones: of "multistep": updates at which the rate steps down, rising,
        each at least 1.
      hold_steps: updates before "exponential" begins to count.

    Raises:
      ValueError: `name` is not known, or the milestones do not rise.
    """
    schedules = keras.optimizers.schedules
    if name == "constant":
        return learning_rate
    if name == "polynomial":
        return schedules.PolynomialDecay(
            learning_rate, steps, end_learning_rate=0.0, power=0.5
        )
    if name == "cosine":
        return schedules.CosineDecay(learning_rate, steps)
    if name == "exponential":
        decay = schedules.ExponentialDecay(
            learning_rate, decay_steps or steps, decay_rate, staircase=True
        )
        return HeldFirst(decay, hold_steps) if hold_steps else decay
    if name == "multistep":
        _check_milestones(milestones)
        return schedules.PiecewiseConstantDecay(
            # Keras' boundaries are the last updates of a rate.
            [milestone - 1 for milestone in milestones],
            [learning_rate * decay_rate**i for i in range(len(milestones) + 1)],
        )
    raise _unknown(name, SCHEDULES)


def build(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    global_clipnorm: float = 0.0,
    ema: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Builds a Keras optimizer.

    Args:
      name: one of `NAMES`.
      learning_rate: number, or what `schedule` returns.
      momentum: of "momentum" and "nesterov", in [0, 1).
      weight_decay: each update also takes learning rate * weight_decay *
        weight from every weight, outside the gradient (decoupled), but for
        biases and the scales and shifts of normalization; 0 turns it off.
      global_clipnorm: all gradients together are made no longer than this; 0
        turns it off.
      ema: in [0, 1): what averages of weights keep of themselves at an update;
        `fit` ends with them. 0 turns it off.

    Raises:
      ValueError: `name` is not known.
    """
    common = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay or None,
        "global_clipnorm": global_clipnorm or None,
        "use_ema": ema > 0,
        "ema_momentum": ema or 0.99,
    }
    if name == "sgd":
        optimizer = keras.optimizers.SGD(**common)
    elif name in ("momentum", "nesterov"):
        optimizer = keras.optimizers.SGD(
            **common, momentum=momentum, nesterov=name == "nesterov"
        )
    elif name == "adam":
        optimizer = keras.optimizers.Adam(**common)
    elif name == "lamb":
        # Of LARS and LAMB, for large batches, Keras has the second.
        optimizer = keras.optimizers.Lamb(**common)
    elif name == "adamw":
        # None is refused there.
        optimizer = keras.optimizers.AdamW(
            **{**common, "weight_decay": weight_decay}
        )
    elif name == "adadelta":
        # BiDAF's; Keras' own epsilon is 1e-7.
        optimizer = keras.optimizers.Adadelta(**common, rho=0.95, epsilon=1e-8)
    else:
        raise _unknown(name, NAMES)
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_names=_NO_DECAY)
    return optimizer


@keras.saving.register_keras_serializable(package="models")
class HeldFirst(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that begins after some updates at its first rate.

    Args:
      schedule: what follows.
      steps: updates before its second one.
    """

    def __init__(self, schedule, steps: int):
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "int64")
        return self.schedule(keras.ops.maximum(step - self.steps, 0))

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"])


def _check_milestones(milestones: Sequence[int]) -> None:
    if not milestones or any(
        later <= earlier
        for earlier, later in zip([0, *milestones], milestones, strict=False)
    ):
        raise ValueError(
            "Invalid value for argument milestones. Expected one or more "
            "integers >= 1 that rise. "
            f"Received: milestones={list(milestones)}"
        )


def _unknown(name: str, known: tuple[str, ...]) -> ValueError:
    return ValueError(
        "Invalid value for argument name. Expected one of "
        f"{{{', '.join(map(repr, sorted(known)))}}}. Received: name={name!r}"
    )
