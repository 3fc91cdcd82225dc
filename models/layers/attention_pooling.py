"""The mean of a sequence by attention, at each of its steps."""

from __future__ import annotations

import keras

import tf_ssl


@keras.saving.register_keras_serializable(package="models")
class AttentionPooling(keras.layers.Layer):
    """Every step gets the same mean of all steps.

        y[t] = sum_s softmax_s(logits[s]) x[s]

    No weights. Steps that do not count have logits far below the others.

    Example:
    >>> import numpy as np
    >>> x = np.array([[[1.0], [2.0], [9.0]]], "float32")
    >>> logits = np.array([[5.0, 5.0, -1e30]], "float32")
    >>> AttentionPooling()(x, logits).numpy().ravel()
    array([1.5, 1.5, 1.5], dtype=float32)

    Args:
      **kwargs: of `keras.layers.Layer`.

    Call arguments:
      sequence: x `[batch, steps, features]`.
      logits: `[batch, steps]`.

    Reference:
      The authors' code for Seo et al., Bidirectional attention flow for machine
      comprehension, ICLR 2017; the paper does not mention it.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, sequence, logits):
        weights = keras.ops.cast(keras.ops.softmax(logits), sequence.dtype)
        mean = keras.ops.matmul(weights[:, None, :], sequence)
        return keras.ops.broadcast_to(mean, keras.ops.shape(sequence))

    def compute_mask(self, *inputs):
        return None  # logits say which steps count

    def compute_output_shape(self, sequence_shape, logits_shape=None):
        return sequence_shape


@tf_ssl.structure_rule(AttentionPooling)
class AttentionPoolingRule(tf_ssl.Rule):
    """Features stay what they are; of a constant the mean is the constant."""

    def declare(self):
        self.passes([-1])
        self.stays("takes a softmax of it", source=1)


@tf_ssl.multiply_add_rule(AttentionPooling)
def _multiply_adds(layer, call):
    batch_size, steps, features = call.input_shapes[0]
    return batch_size * steps * features
