"""The averages of weights that an optimizer keeps, for evaluation."""

from __future__ import annotations

import contextlib

import keras


@contextlib.contextmanager
def averaged_weights(model: keras.Model):
    """The model has averaged weights within the block.

    Those of the optimizer's EMA; under `tf_ssl.GroupLassoOptimizer` what it
    thresholds is thresholded again, so that zeros survive. Without EMA nothing
    happens.

    Args:
      model: compiled, with a built optimizer.
    """
    if not model.optimizer.use_ema:
        yield
        return
    weights = model.trainable_variables
    before = [keras.ops.copy(v.value) for v in weights]
    model.optimizer.finalize_variable_values(weights)
    try:
        yield
    finally:
        for variable, value in zip(weights, before, strict=True):
            variable.assign(value)


class AveragedWeights(keras.callbacks.Callback):
    """Lets `fit` validate with averaged weights; see `averaged_weights`."""

    def on_test_begin(self, logs=None):
        self._block = averaged_weights(self.model)
        self._block.__enter__()

    def on_test_end(self, logs=None):
        self._block.__exit__(None, None, None)
