"""The group Lasso in the logs of fit."""

from __future__ import annotations

import keras

from tf_ssl.penalties.optimizers.group_lasso_optimizer import find_group_lasso


class GroupLassoMetric(keras.callbacks.Callback):
    """Adds the penalty of a GroupLassoOptimizer to the logs of `fit`.

    - `group_lasso`: the penalty at the last update, strengths included; the
      loss does not contain it.
    - `strength`: the strength, or the mean over structures where it differs.

    At the end of each batch, for the progress bar, and of each epoch, for
    `History`, TensorBoard and other callbacks that stand after it.

    Raises:
        TypeError: When `fit` begins, if the model's optimizer neither is nor
            wraps a GroupLassoOptimizer.
    """

    def on_train_begin(self, logs=None):
        """Finds the optimizer."""
        self._optimizer = group_lasso_of(self.model, type(self).__name__)

    def on_train_batch_end(self, batch, logs=None):
        """Adds the metrics to `logs`."""
        self._add(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the metrics to `logs`."""
        self._add(logs)

    def _add(self, logs):
        if logs is not None:
            optimizer = self._optimizer
            logs["group_lasso"] = float(optimizer.group_lasso)
            logs["strength"] = mean_strength(optimizer)


def group_lasso_of(model, callback: str):
    """The GroupLassoOptimizer of a model.

    Args:
        model: Compiled Keras model.
        callback: Who asks, for the message.

    Raises:
        TypeError: If there is none.
    """
    optimizer = find_group_lasso(model.optimizer)
    if optimizer is None:
        raise TypeError(
            f"{callback} expects a model compiled with "
            "tf_ssl.GroupLassoOptimizer, also inside other optimizers. The "
            "strength of a tf_ssl.GroupLasso regularizer cannot change while "
            "training: it is a constant of the compiled step. Received: "
            f"optimizer={model.optimizer!r}"
        )
    return optimizer


def mean_strength(optimizer) -> float:
    """Mean over the structures of a GroupLassoOptimizer."""
    return float(keras.ops.mean(optimizer.strength))
