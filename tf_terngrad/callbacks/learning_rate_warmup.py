"""The learning rate rises over the first steps."""

import keras

from tf_terngrad import checks


class LearningRateWarmup(keras.callbacks.Callback):
    """Raises the learning rate linearly to the optimizer's own.

        rate(step) = rate * (start + (1 - start) * step / steps),  step < steps

    Steps are the optimizer's iterations, so that a run that goes on from a
    checkpoint goes on here too.

    Args:
        steps: Updates until the full rate, >= 1.
        start: Share of the rate at the first update, in [0, 1]; 1 / N for N
            workers whose rate was multiplied by N.
        learning_rate: The full rate, > 0. None: what the optimizer has when
            training begins, which after a restart in the middle of the warm-up
            is not the full one.

    Raises:
        ValueError: An argument is none of these; when training begins, if the
            optimizer has a schedule.

    Reference: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet
    in 1 Hour", arXiv 1706.02677, section 2.2.
    """

    def __init__(
        self, steps: int, start: float = 0.0, learning_rate: float | None = None
    ):
        super().__init__()
        checks.integer("steps", steps, 1)
        is_number = isinstance(start, int | float) and not isinstance(
            start, bool
        )
        if not is_number or not 0 <= start <= 1:
            raise ValueError(
                "Invalid value for argument start. Expected a number in "
                f"[0, 1]. Received: start={start!r}"
            )
        self.steps = steps
        self.start = float(start)
        self.learning_rate = (
            None
            if learning_rate is None
            else checks.positive_float("learning_rate", learning_rate)
        )

    def on_train_begin(self, logs=None):
        """Reads the full rate."""
        optimizer = self.model.optimizer
        inner = optimizer
        while getattr(inner, "inner_optimizer", None) is not None:
            inner = inner.inner_optimizer
        schedule = inner._learning_rate
        if isinstance(
            schedule, keras.optimizers.schedules.LearningRateSchedule
        ):
            raise ValueError(
                "LearningRateWarmup sets a learning rate, and the optimizer "
                f"has a schedule, {type(schedule).__name__}: use a schedule "
                "that warms up, such as keras' CosineDecay(warmup_steps=...)"
            )
        if self.learning_rate is None:
            self.learning_rate = float(
                keras.ops.convert_to_numpy(optimizer.learning_rate)
            )

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the rate of the next update."""
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if step <= self.steps:
            share = self.start + (1 - self.start) * step / self.steps
            self.model.optimizer.learning_rate = self.learning_rate * share


def scaled_learning_rate(
    learning_rate: float,
    batch_size: int,
    base_batch_size: int,
    rule: str = "linear",
) -> float:
    """The learning rate of another batch size.

    Args:
        learning_rate: At `base_batch_size`, > 0.
        batch_size: Examples of all workers, >= 1.
        base_batch_size: Likewise.
        rule: "linear": rate * B / B0; "sqrt": rate * sqrt(B / B0), which keeps
            the variance of an update.

    Raises:
        ValueError: An argument is none of these.

    >>> scaled_learning_rate(0.1, 1024, 256)
    0.4
    >>> scaled_learning_rate(0.1, 1024, 256, "sqrt")
    0.2

    Reference: "linear": Goyal et al., arXiv 1706.02677; "sqrt": Hoffer et al.,
    "Train longer, generalize better", NIPS 2017.
    """
    learning_rate = checks.positive_float("learning_rate", learning_rate)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("base_batch_size", base_batch_size, 1)
    checks.choice("rule", rule, ("linear", "sqrt"))
    ratio = batch_size / base_batch_size
    return learning_rate * (ratio if rule == "linear" else ratio**0.5)
