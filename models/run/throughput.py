"""Where an epoch stands and how fast it went, in its logs."""

from __future__ import annotations

import time

import keras


class Throughput(keras.callbacks.Callback):
    """Adds to the logs of every epoch, for the callbacks after it:

    - `epoch`: number of epochs done, `step`: number of steps done
    - `learning_rate`: that of the next update
    - `images_per_second`, or another unit: of all workers, over the training
      steps
    - `seconds`: of the epoch with its validation

    Args:
      batch_size: units of a step, of all workers together.
      first_step: steps done before this call of `fit`.
      unit: what the rate counts.
    """

    def __init__(
        self, batch_size: int, first_step: int = 0, unit: str = "images"
    ):
        super().__init__()
        self.batch_size = batch_size
        self.unit = unit
        self._step = first_step
        self._steps_of_epoch = 0
        self._begin = self._end = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_of_epoch = 0
        self._begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        self._steps_of_epoch += 1
        self._end = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = self._end - self._begin
        logs["epoch"] = epoch + 1
        logs["step"] = self._step
        logs["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )
        logs[f"{self.unit}_per_second"] = (
            self._steps_of_epoch * self.batch_size / seconds
        )
        logs["seconds"] = time.perf_counter() - self._begin
