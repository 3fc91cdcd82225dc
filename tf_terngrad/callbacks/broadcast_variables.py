"""All workers start alike."""

import keras

from tf_terngrad import agreement, collectives, replica
from tf_terngrad.callbacks import average_statistics


class BroadcastVariables(keras.callbacks.Callback):
    """Checks that all workers do the same, then copies one worker's weights.

    When training begins, all workers compare versions, model, variables,
    compression, optimizer and steps per epoch, and stop if anything differs;
    then weights, moving statistics and optimizer variables of the root worker
    are copied to all. Seed generators are left alone: every worker keeps its
    own dropout masks. Put it first in the list of callbacks.

    Args:
        root: Rank whose values are taken. Defaults to 0.
        statistics: Whether moving statistics are copied too. Pass False after
            each worker has restored its own. Defaults to True.

    Raises:
        RuntimeError: On every worker, when training begins, naming what
            differs between workers.
    """

    def __init__(self, root: int = 0, statistics: bool = True):
        super().__init__()
        self.root = root
        self.statistics = statistics

    def on_train_begin(self, logs=None):
        """Checks, then copies."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        agreement.check_agreement(
            agreement.facts_of(self.model, self.params.get("steps"))
        )
        variables = (
            self.model.trainable_variables
            + replica.optimizer_variables(optimizer)
        )
        if self.statistics:
            variables = variables + average_statistics.statistics_of(self.model)
        collectives.broadcast_variables(
            [v.value for v in variables], root=self.root
        )
