"""Attention between a text and a question, both ways."""

from __future__ import annotations

import keras
import numpy as np

import tf_ssl
from models.layers.masked_scores import masked_scores


@keras.saving.register_keras_serializable(package="models")
class AttentionFlow(keras.layers.Layer):
    """Each word of a text beside what it attends to.

    From h `[batch, T, d]` of the text and u `[batch, J, d]` of the question

        s[t, j] = w_h . h[t] + w_u . u[j] + w_hu . (h[t] * u[j]) + b
        u~[t] = sum_j softmax_j(s[t, j]) u[j]
        h~ = sum_t softmax_t(max_j s[t, j]) h[t]
        y[t] = [h[t]; u~[t]; h[t] * u~[t]; h[t] * h~]

    with weights `kernel` `[3, d]` (w_h, w_u, w_hu) and `bias` (b). Scores are
    float32.

    Example:
    >>> import numpy as np
    >>> h, u = np.ones((1, 5, 2), "float32"), np.ones((1, 3, 2), "float32")
    >>> AttentionFlow()(h, u).shape
    TensorShape([1, 5, 8])

    Args:
      kernel_initializer: of `kernel`.
      **kwargs: of `keras.layers.Layer`.

    Call arguments:
      context: h.
      question: u.
      context_mask: boolean `[batch, T]`: which words are there; None: all.
      question_mask: boolean `[batch, J]`, likewise.

    Raises:
      ValueError: h and u have different numbers of features.

    Reference:
      Seo et al., Bidirectional attention flow for machine comprehension, ICLR
      2017, equations 1 and 2.
    """

    def __init__(self, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, context_shape, question_shape):
        if context_shape[-1] != question_shape[-1]:
            raise ValueError(
                "Invalid value for argument question. Expected as many "
                f"features as context has, {context_shape[-1]}. Received: "
                f"{question_shape[-1]}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(3, context_shape[-1]),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")

    def call(self, context, question, context_mask=None, question_mask=None):
        ops = keras.ops
        w_h, w_u, w_hu = ops.unstack(self.kernel)
        u_transposed = ops.swapaxes(question, 1, 2)  # [batch, d, J]
        scores = ops.matmul(context * w_hu, u_transposed)
        scores += ops.sum(context * w_h, -1, keepdims=True)
        scores += ops.expand_dims(ops.sum(question * w_u, -1), 1)
        scores = masked_scores(
            scores + self.bias,
            None if question_mask is None else question_mask[:, None, :],
        )  # [batch, T, J]
        largest = masked_scores(ops.max(scores, axis=2), context_mask)
        of_question = ops.cast(ops.softmax(scores), context.dtype)
        of_context = ops.cast(ops.softmax(largest), context.dtype)
        attended = ops.matmul(of_question, question)  # u~ [batch, T, d]
        pooled = ops.matmul(of_context[:, None, :], context)  # h~ [batch, 1, d]
        return ops.concatenate(
            [context, attended, context * attended, context * pooled], axis=-1
        )

    def compute_mask(self, *inputs):
        return None  # the masks of two sequences are arguments

    def compute_output_shape(self, context_shape, question_shape):
        return (*context_shape[:-1], 4 * context_shape[-1])

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


@tf_ssl.structure_rule(AttentionFlow)
class AttentionFlowRule(tf_ssl.Rule):
    """A unit is one feature of text and question, and four of the result.

    What a constant feature adds to scores is the same for all words, so that
    no softmax sees it.
    """

    def declare(self):
        if any(-1 not in axes for axes in self.inputs[:2]):
            self.stays("meets what is not followed")
            self.stays("meets what is not followed", source=1)
            return
        h, u = (axes[-1] for axes in self.inputs[:2])
        self.tracer.elements.union(h, u)
        self.tracer.slice(self.layer.kernel, "in", h, 1)
        self.outputs[0][-1] = np.tile(h, 4)

    def constants(self, read, inputs):
        if -1 not in self.outputs[0]:
            return super().constants(read, inputs)
        h, u = self._constants = [values[-1] for values in inputs[:2]]

        def product(a, b):
            return np.where((a == 0) | (b == 0), 0.0, a * b)

        # Weights of a mean add up to 1: u~ is u, h~ is h.
        return [{-1: np.concatenate([h, u, product(h, u), product(h, h)])}]

    def needs(self, read, wanted, inputs, gone):
        found = [
            {a: np.ones(len(v), bool) for a, v in one.items()} for one in inputs
        ]
        if -1 not in self.outputs[0]:
            return found
        live = wanted[0][-1] & (self.constants(read, inputs)[0][-1] != 0)
        of_h, attended, product, pooled = np.split(live, 4)
        scored = np.split(live & ~gone[0][-1], 4)[1:]
        w_h, w_u, w_hu = (read(self.layer.kernel) != 0) & np.any(scored)
        found[0][-1] = of_h | product | pooled | w_h | w_hu
        found[1][-1] = attended | product | w_u | w_hu
        return found

    def read_axes(self, index):
        return (-1,) if index < 2 and -1 in self.outputs[0] else ()

    def foldable(self, read, constants, index):
        return {-1: ~np.isnan(self._constants).any(axis=0)}

    def folds(self, read, constants, index):
        return []  # see above


@tf_ssl.multiply_add_rule(AttentionFlow)
def _multiply_adds(layer, call):
    (batch_size, steps, features), (_, words, _) = call.input_shapes[:2]
    return batch_size * features * (2 * steps * words + 2 * steps + words)
