"""Stops training when replicas differ."""

import hashlib

import keras
import numpy as np

from tf_terngrad import checks, collectives, replica
from tf_terngrad.exchange import path


class ReplicaCheck(keras.callbacks.Callback):
    """Checks that all workers hold the same weights, to the bit.

    Compares trainable and optimizer variables when training begins and at the
    end of each epoch. Moving statistics, seed generators, sums of micro-steps
    and what clipping removed differ between workers by design. Put it after
    BroadcastVariables.

    Args:
        every_n_epochs: Int >= 1. Defaults to 1.

    Raises:
        RuntimeError: On every worker, naming the first variable that differs.
    """

    def __init__(self, every_n_epochs: int = 1):
        super().__init__()
        checks.integer("every_n_epochs", every_n_epochs, 1)
        self.every_n_epochs = every_n_epochs

    def on_train_begin(self, logs=None):
        """Checks."""
        self._check("at the start")

    def on_epoch_end(self, epoch, logs=None):
        """Checks."""
        if (epoch + 1) % self.every_n_epochs == 0:
            self._check(f"after epoch {epoch + 1}")

    def _check(self, when):
        if collectives.size() == 1:
            return
        variables = self.model.trainable_variables
        variables = variables + replica.optimizer_variables(
            self.model.optimizer
        )
        gathered = collectives.allgather_object(
            [_digest(v) for v in variables], name="replica_check"
        )
        for i, variable in enumerate(variables):
            digests = [digests[i] for digests in gathered]
            differing = [r for r, d in enumerate(digests) if d != digests[0]]
            if differing:
                raise RuntimeError(
                    f"The replicas differ {when}: variable {path(variable)} "
                    f"of worker {differing[0]} is not that of worker 0. "
                    "Every change of weights must be the same on all workers: "
                    "look for updates outside the optimizer, for other data "
                    "types or for another number of steps."
                )


def _digest(variable) -> bytes:
    """128 bits of a variable's bytes."""
    value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
    return hashlib.blake2b(value.tobytes(), digest_size=16).digest()
