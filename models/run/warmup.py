"""Learning rates of large batches: scaled, and warmed up."""

from __future__ import annotations

import keras
from keras import ops

import tf_terngrad as tg

RULES = ("linear", "sqrt")


def define_flags(add) -> None:
    """Defines the flags of `learning_rate`; `add` as in `train_flags`."""
    add.count(
        "lr_base_batch",
        0,
        "--learning_rate is that of so many examples a step: it is scaled to "
        "those of all workers. 0: it is taken as it is.",
        0,
    )
    add.choice(
        "lr_scaling",
        "linear",
        RULES,
        "With --lr_base_batch: with the batch, or its square root.",
    )
    add.count(
        "lr_warmup_steps",
        0,
        "The learning rate rises linearly over so many updates. 0: none.",
        0,
    )


def scaled(options, num_workers: int) -> float:
    """--learning_rate, scaled to the batch of all workers.

    Args:
      options: train.py's flags.
      num_workers: real and virtual ones.
    """
    if not options.lr_base_batch:
        return options.learning_rate
    return tg.scaled_learning_rate(
        options.learning_rate,
        options.batch_size * num_workers * options.accumulate,
        options.lr_base_batch,
        options.lr_scaling,
    )


@keras.saving.register_keras_serializable(package="models")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Any learning rate, times (t + 1) / steps over the first steps.

    >>> [round(float(Warmup(0.8, 4)(step)), 6) for step in (0, 1, 3, 9)]
    [0.2, 0.4, 0.8, 0.8]

    Args:
      after: number, or a Keras schedule.
      steps: of the warm-up, >= 1.
    """

    def __init__(self, after, steps: int):
        self.after = after
        self.steps = steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        after = self.after(step) if callable(self.after) else self.after
        return after * ops.minimum((step + 1.0) / self.steps, 1.0)

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        after = self.after
        if callable(after):
            after = keras.saving.serialize_keras_object(after)
        return {"after": after, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        """Inverse of `get_config`."""
        after = config["after"]
        if isinstance(after, dict):
            after = keras.saving.deserialize_keras_object(after)
        return cls(after, config["steps"])
