"""A Keras optimizer around another."""

from __future__ import annotations

import keras

from tf_ssl.penalties.optimizers import keras_hooks


class OptimizerWrapper(keras.optimizers.Optimizer):
    """Leaves all settings to the optimizer that it wraps.

    Subclasses set `inner_optimizer` last in their constructor: Keras' own sets
    attributes that belong to the wrapped optimizer.
    """

    @property
    def variables(self):
        """Own variables, then those of the wrapped optimizer."""
        return keras_hooks.own_variables(self) + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        """Of the wrapped optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        """Of the wrapped optimizer."""
        return self.inner_optimizer.iterations

    @property
    def use_ema(self):
        """Of the innermost optimizer."""
        return self._is_complete() and innermost(self).use_ema

    @use_ema.setter
    def use_ema(self, value):
        if self._is_complete():
            innermost(self).use_ema = value

    @property
    def gradient_accumulation_steps(self):
        """Of the wrapped optimizer."""
        return self._of_inner("gradient_accumulation_steps")

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, value):
        self._set_inner("gradient_accumulation_steps", value)

    @property
    def loss_scale_factor(self):
        """Of the wrapped optimizer."""
        return self._of_inner("loss_scale_factor")

    @loss_scale_factor.setter
    def loss_scale_factor(self, value):
        self._set_inner("loss_scale_factor", value)

    def scale_loss(self, loss):
        """Lets the wrapped optimizer scale the loss."""
        return self.inner_optimizer.scale_loss(loss)

    def apply_gradients(self, grads_and_vars):
        """As `apply`, for pairs; returns `iterations`."""
        grads, variables = zip(*grads_and_vars, strict=True)
        self.apply(grads, variables)
        return self.iterations

    def finalize_variable_values(self, var_list):
        """Lets the wrapped optimizer write its averaged weights."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def _is_complete(self):
        return "inner_optimizer" in self.__dict__

    def _of_inner(self, name):
        if not self._is_complete():
            return None
        return getattr(self.inner_optimizer, name)

    def _set_inner(self, name, value):
        if self._is_complete():
            setattr(self.inner_optimizer, name, value)


def innermost(optimizer):
    """What is inside all wrappers."""
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    return optimizer
