"""Elementwise arithmetic in one pass over memory, by XLA."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

# Weights; below, TensorFlow's operations one by one are as fast.
_LARGE = 1 << 18


def one_pass(function: Callable, num_weights: int) -> Callable:
    """The function, compiled if its tensors are large and lie on a CPU.

    TensorFlow runs one operation after the other, each through memory; a
    training step with the group Lasso spends its time there.

    Args:
        function: Of tensors, without side effects.
        num_weights: Number of elements of its tensors.
    """
    if num_weights < _LARGE or tf.config.list_physical_devices("GPU"):
        return function
    return tf.function(function, autograph=False, jit_compile=True)


def under_xla() -> bool:
    """Whether XLA compiles the function that is being traced."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )
