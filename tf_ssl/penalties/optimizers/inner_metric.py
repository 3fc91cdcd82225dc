"""The metric in which a Keras optimizer steps, and what carries its momentum.

A proximal step solves the group Lasso only if it uses the metric d of the
gradient step before it, which moves weight i by learning_rate * m_i / d_i, and
if it leaves the momentum at what the weights really did:

| optimizer | d | after the proximal step |
|---|---|---|
| SGD | 1 | |
| SGD, momentum | 1 | velocity = x_new - x |
| SGD, Nesterov | 1 | as FISTA: see below |
| Adam, AdamW, Nadam | sqrt(v_hat) + epsilon | moments kept |
| Adamax | u + epsilon | moments kept |
| RMSprop, Adagrad | sqrt(v + epsilon) | RMSprop's momentum as SGD's |

Epsilon stands where Keras puts it: in Adam d = (sqrt(v) + epsilon) /
sqrt(1 - beta_2^t).

Without the second rule momentum sums the gradients of the loss alone, and the
strength that acts is strength * (1 - momentum). Under Nesterov the weights of
the model are the look-ahead point w = x + momentum * velocity: with m the
velocity after Keras' step, the step is taken at x + m = w - momentum * m, then
velocity = x_new - x and w_new = x_new + momentum * velocity. Units at zero
stop there.

Reference: Beck and Teboulle, "A fast iterative shrinkage-thresholding
algorithm for linear inverse problems", SIAM J. Imaging Sciences 2009.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_ssl.penalties.optimizers import keras_hooks

SUPPORTED = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Nadam,
    keras.optimizers.Adamax,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
)


def kind(optimizer) -> type | None:
    """The one of `SUPPORTED` whose update the optimizer makes, or None."""
    for supported in SUPPORTED:
        same = type(optimizer).update_step is supported.update_step
        if isinstance(optimizer, supported) and same:
            return supported
    return None


def diagonal(optimizer, variable):
    """The metric d of the step that the optimizer has just made.

    Args:
        optimizer: One of `SUPPORTED`, before it counts the step.
        variable: `keras.Variable`.

    Returns:
        Tensor of the variable's shape, > 0, or None for d = 1.
    """

    def slot(name):
        value = keras_hooks.slot(optimizer, name, variable).value
        return tf.convert_to_tensor(value)

    made = kind(optimizer)
    if made is keras.optimizers.SGD:
        return None
    if made is keras.optimizers.Adamax:
        return slot("largest gradient") + optimizer.epsilon
    if made is keras.optimizers.Adagrad:
        return tf.sqrt(slot("sum of squares") + optimizer.epsilon)
    second = slot("second moment")
    if made is keras.optimizers.RMSprop:
        if optimizer.centered:
            second -= tf.square(slot("mean gradient"))
        return tf.sqrt(second + optimizer.epsilon)
    step = tf.cast(optimizer.iterations + 1, second.dtype)
    correction = 1 - tf.pow(_as_keras(optimizer.beta_2, second.dtype), step)
    if made is keras.optimizers.Nadam:
        return tf.sqrt(second / correction) + optimizer.epsilon
    if optimizer.amsgrad:
        second = slot("largest second moment")
    return (tf.sqrt(second) + optimizer.epsilon) / tf.sqrt(correction)


def point(optimizer, variable):
    """Where the proximal step is taken: the weights; under Nesterov x + m."""
    value = tf.convert_to_tensor(variable.value)
    if not _is_nesterov(optimizer):
        return value
    velocity, _ = _velocity(optimizer, variable)
    return value - _as_keras(optimizer.momentum, value.dtype) * velocity.value


def finish(optimizer, variable, after, taken):
    """Writes the weights, and the momentum that they had.

    Args:
        optimizer: Any; the momentum of those in `SUPPORTED` is written.
        variable: `keras.Variable`.
        after: Its value after the proximal step.
        taken: What the step took: `point` - after.
    """
    velocity, sign = _velocity(optimizer, variable)
    if velocity is None:
        variable.assign(after)
        return
    # x_new - x = m - taken, without the rounding of the difference.
    moved = velocity.value - sign * tf.cast(taken, velocity.dtype)
    if _is_nesterov(optimizer):
        alive = tf.not_equal(after, 0)
        moved = tf.where(alive, moved, tf.zeros_like(moved))
        momentum = _as_keras(optimizer.momentum, moved.dtype)
        after = tf.where(alive, after + momentum * moved, tf.zeros_like(after))
    velocity.assign(moved)
    variable.assign(after)


def _as_keras(value, dtype):
    """A hyper-parameter as Keras casts it: over float32, also to float64."""
    return keras.ops.cast(value, dtype.name)


def _is_nesterov(optimizer) -> bool:
    is_sgd = kind(optimizer) is keras.optimizers.SGD
    return is_sgd and optimizer.momentum > 0 and optimizer.nesterov


def _velocity(optimizer, variable):
    """The variable that holds the momentum, and the sign it moves weights by.

    (None, 1) where there is none, or where it averages gradients, which the
    proximal step leaves as they are.
    """
    signs = {keras.optimizers.SGD: 1, keras.optimizers.RMSprop: -1}
    sign = signs.get(kind(optimizer))
    if sign is None or not optimizer.momentum > 0:
        return None, 1
    return keras_hooks.slot(optimizer, "momentum", variable), sign
