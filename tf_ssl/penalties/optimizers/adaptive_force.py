"""Forces between filters, as strong as the gradient of the loss says."""

from __future__ import annotations

import fnmatch

import keras
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.penalties.force_regularizer import NORMS, force
from tf_ssl.penalties.optimizers import keras_hooks
from tf_ssl.penalties.optimizers.optimizer_wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="tf_ssl")
class AdaptiveForce(OptimizerWrapper):
    """Force regularization with a strength that follows each layer's gradient.

    For a kernel W with gradient g the wrapped optimizer gets

        g - ratio * ||g|| / ||dW|| * dW

    with dW of `tf_ssl.ForceRegularizer`, whose strength is the same all the
    time; here one ratio fits layers whose gradients differ in size, and the
    whole of training. Loss scaling does not change it.

    Args:
        optimizer: `keras.optimizers.Optimizer` that updates.
        ratio: Float >= 0: norm of the force's part over that of the gradient.
        kernels: Patterns of variable paths ("*" as in fnmatch). Defaults to all
            that end in "kernel".
        norm: "l1" or "l2". Defaults to "l1".
        name: Of the optimizer.

    Raises:
        ValueError: An argument is none of these; when it is built, if a pattern
            matches no trained variable of two axes or more.

    >>> optimizer = AdaptiveForce(keras.optimizers.SGD(0.1), 0.05)

    Reference: Wen et al., "Coordinating Filters for Faster Deep Neural
    Networks", ICCV 2017; the authors' solver calls it `adaptive`.
    """

    def __init__(
        self, optimizer, ratio, kernels=("*kernel",), norm="l1", name=None
    ):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                "Invalid value for argument optimizer. Expected a "
                f"keras.optimizers.Optimizer. Received: optimizer={optimizer!r}"
            )
        super().__init__(learning_rate=0.0, name=name)
        self.ratio = checks.not_negative("ratio", ratio)
        checks.choice("norm", norm, NORMS)
        self.norm = norm
        self.kernels = (kernels,) if isinstance(kernels, str) else kernels
        self.kernels = tuple(self.kernels)
        self.inner_optimizer = optimizer

    def build(self, var_list):
        """Looks the patterns up; builds the wrapped optimizer."""
        if self.built:
            return
        for pattern in self.kernels:
            if not any(_matches(v, (pattern,)) for v in var_list):
                raise ValueError(
                    "Invalid value for argument kernels. Expected patterns "
                    "that match trained variables of two axes or more: "
                    f"{', '.join(v.path for v in var_list)}. Received: "
                    f"{pattern!r}, which matches none"
                )
        keras_hooks.register(self, var_list)
        self.inner_optimizer.build(var_list)
        self.built = True

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads, trainable_variables=None):
        """Adds the forces to the gradients, and lets the optimizer update.

        Args:
            grads: One gradient a variable; None and sparse ones stay as they
                are.
            trainable_variables: Defaults to those it was built with.
        """
        if trainable_variables is None:
            trainable_variables = keras_hooks.trained(self)
        variables = list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        grads = [
            self._with_force(grad, variable)
            if isinstance(grad, tf.Tensor) and _matches(variable, self.kernels)
            else grad
            for grad, variable in zip(grads, variables, strict=True)
        ]
        self.inner_optimizer.apply(grads, variables)

    def _with_force(self, grad, variable):
        forces = tf.cast(
            force(tf.convert_to_tensor(variable), self.norm), grad.dtype
        )
        factor = tf.math.divide_no_nan(tf.norm(grad), tf.norm(forces))
        return grad - self.ratio * factor * forces

    def get_config(self):
        """See `keras.optimizers.Optimizer.get_config`."""
        return {
            "optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "ratio": self.ratio,
            "kernels": list(self.kernels),
            "norm": self.norm,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        config = dict(config)
        config["optimizer"] = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**config)


def _matches(variable, patterns) -> bool:
    return len(variable.shape) >= 2 and any(
        fnmatch.fnmatchcase(variable.path, pattern) for pattern in patterns
    )
