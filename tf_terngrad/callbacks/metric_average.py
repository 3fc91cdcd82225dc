"""Metrics of all workers, averaged."""

import keras
import tensorflow as tf

from tf_terngrad import collectives


class MetricAverage(keras.callbacks.Callback):
    """Averages each epoch's logs over workers, in place.

    Callbacks after this one (TensorBoard, checkpoints, learning rate plans)
    then see the same values on all workers.

    Args:
        validation_examples: Number of examples that this worker validates:
            the weight of its `val_*` logs. None: all workers weigh the same.
    """

    def __init__(self, validation_examples: int | None = None):
        super().__init__()
        self.validation_examples = validation_examples

    def on_epoch_end(self, epoch, logs=None):
        """Averages `logs`."""
        workers = collectives.Workers()
        if workers.size == 1 or not logs:
            return
        keys = sorted(logs)
        weights = [
            1.0
            if self.validation_examples is None or not key.startswith("val_")
            else float(self.validation_examples)
            for key in keys
        ]
        weights = tf.constant(weights, tf.float64)
        values = tf.constant([float(logs[key]) for key in keys], tf.float64)
        totals, weight = tf.unstack(
            workers.sum(tf.stack([values * weights, weights]), "metrics")
        )
        for key, average in zip(keys, (totals / weight).numpy(), strict=True):
            logs[key] = float(average)
