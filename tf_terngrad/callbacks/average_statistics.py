"""Moving statistics of all workers, averaged."""

import keras

from tf_terngrad import collectives


class AverageStatistics(keras.callbacks.Callback):
    """Averages moving statistics over workers before evaluation and saving.

    Each worker keeps the moving mean and variance of the batches that it has
    seen. They are averaged when an evaluation begins and at the end of each
    epoch, so that evaluation and checkpoints do not depend on the worker. Put
    it before callbacks that save.
    """

    def on_test_begin(self, logs=None):
        """Averages."""
        average(statistics_of(self.model))

    def on_epoch_end(self, epoch, logs=None):
        """Averages."""
        average(statistics_of(self.model))


def statistics_of(model) -> list:
    """Moving statistics: non-trainable variables, but for seed generators."""
    return [
        v
        for v in model.non_trainable_variables
        if keras.backend.is_float_dtype(v.dtype)
    ]


def average(variables: list) -> None:
    """Replaces variables by their averages over workers."""
    workers = collectives.Workers()
    if workers.size == 1 or not variables:
        return
    for dtype in sorted({str(v.dtype) for v in variables}):
        members = [v for v in variables if str(v.dtype) == dtype]
        totals = workers.sum_all(
            [v.value + 0 for v in members], f"statistics.{dtype}"
        )
        for variable, total in zip(members, totals, strict=True):
            variable.assign(total / workers.size)
