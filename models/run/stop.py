"""Ends training within an epoch."""

from __future__ import annotations

import keras


class StopAtStep(keras.callbacks.Callback):
    """Stops after a number of steps, counted over all epochs.

    The last epoch then is a shorter one; validation and the callbacks at its
    end run as ever.

    Args:
      steps: number of steps of the whole run, at least 1.
      first_step: steps done before this call of `fit`.
    """

    def __init__(self, steps: int, first_step: int = 0):
        super().__init__()
        self.steps = steps
        self._done = first_step

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        if self._done >= self.steps:
            self.model.stop_training = True
