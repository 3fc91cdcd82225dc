"""Commits while `model.fit` trains."""

import keras

from tf_terngrad import checks, collectives


class Commit(keras.callbacks.Callback):
    """Moves a state's position on and commits it.

    A lost worker costs at most the steps since the last commit, which copies
    all variables to the host's memory. Put it last in the list of callbacks:
    training leaves by it when workers join or leave.

    Args:
        state: `State`.
        batch_size: Examples of a worker's batch.
        every_n_steps: Int >= 1; also at the end of each epoch. Defaults to 100.
    """

    def __init__(self, state, batch_size: int, every_n_steps: int = 100):
        super().__init__()
        checks.integer("batch_size", batch_size, 1)
        checks.integer("every_n_steps", every_n_steps, 1)
        self.state = state
        self.batch_size = batch_size
        self.every_n_steps = every_n_steps
        self._last = -1
        self._steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Batches are counted from here."""
        self._last = -1

    def on_train_batch_end(self, batch, logs=None):
        """Counts, and commits every so many steps."""
        steps = batch - self._last  # several under steps_per_execution
        self._last = batch
        self.state.examples += steps * self.batch_size * collectives.size()
        self._steps += steps
        if self._steps >= self.every_n_steps:
            self._steps = 0
            self.state.commit()

    def on_epoch_end(self, epoch, logs=None):
        """Goes on to the next epoch, and commits."""
        self.state.epoch = epoch + 1
        self.state.examples = 0
        self._steps = 0
        self.state.commit()
