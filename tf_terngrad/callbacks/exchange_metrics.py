"""What the exchange sent, in the logs."""

import keras
import tensorflow as tf

from tf_terngrad import collectives
from tf_terngrad.optimizer import DistributedOptimizer


class ExchangeMetrics(keras.callbacks.Callback):
    """Adds what was exchanged in an epoch to its logs.

    - `bits_per_element`: bits a worker sends per element and exchange, by the
      formula of a ring allreduce; payload and scalers, without the transport's
      headers. 0 with one worker.
    - `zero_fraction`: part of the ternarized elements sent as 0.
    - `saturation`: part of them cut to their clip level.

    The last two are averages over all workers, and there only where something
    was ternarized.

    Raises:
        TypeError: When training begins, if the model's optimizer is no
            DistributedOptimizer.
    """

    def on_train_begin(self, logs=None):
        """Checks the optimizer; builds it if need be."""
        optimizer = self.model.optimizer
        if not isinstance(optimizer, DistributedOptimizer):
            raise TypeError(
                "ExchangeMetrics expects a model compiled with "
                f"tg.DistributedOptimizer. Received: optimizer={optimizer!r}"
            )
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch, logs=None):
        """Starts counting."""
        self.model.optimizer.statistics.reset()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the metrics to `logs`."""
        if logs is None:
            return
        optimizer = self.model.optimizer
        totals = tf.constant(optimizer.statistics.totals(), tf.int64)
        totals = collectives.Workers().sum(totals, "exchange_metrics")
        num_elements, num_nonzero, num_clipped = (int(t) for t in totals)
        logs["bits_per_element"] = optimizer.bits_per_element()
        if num_elements:
            logs["zero_fraction"] = 1.0 - num_nonzero / num_elements
            logs["saturation"] = num_clipped / num_elements
