"""Layers that add the losses of unsupervised domain adaptation."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="models")
class DomainDivergence(keras.layers.Layer):
    """Adds how far apart the features of two domains are; passes logits on.

    The squared maximum mean discrepancy of features s `[batch, d]` of the
    source and t of the target,

        weight * (mean k(s, s') + mean k(t, t') - 2 mean k(s, t)),

    with k a mean of Gaussian kernels exp(-|x - y|^2 / (b m)), whose m is the
    mean squared distance of all pairs, through which no gradient goes, and b
    in `bandwidths`. It is 0 if both batches are the same, and bounded.

    Called with `[s, t, logits]`, returns logits.

    Args:
      weight: >= 0, of the loss.
      bandwidths: b, each > 0.

    Reference:
      Gretton et al., A kernel two-sample test, JMLR 2012, equation 5; Long et
      al., Learning transferable features with deep adaptation networks, ICML
      2015, for its use as a loss.
    """

    def __init__(
        self, weight=1.0, bandwidths=(0.25, 0.5, 1.0, 2.0, 4.0), **kwargs
    ):
        super().__init__(**kwargs)
        _check_weight(weight)
        if not bandwidths or min(bandwidths) <= 0:
            raise ValueError(
                "Invalid value for argument bandwidths. Expected numbers > 0. "
                f"Received: bandwidths={bandwidths!r}"
            )
        self.weight = weight
        self.bandwidths = tuple(bandwidths)

    def call(self, inputs):
        source, target, logits = inputs
        points = ops.cast(ops.concatenate([source, target]), "float32")
        squares = ops.sum(ops.square(points), axis=-1)
        distances = ops.maximum(
            squares[:, None]
            + squares[None]
            - 2 * ops.matmul(points, ops.transpose(points)),
            0.0,
        )  # [2 batch, 2 batch]
        scale = ops.stop_gradient(ops.mean(distances))
        scale = ops.where(scale > 0, scale, ops.ones_like(scale))
        kernel = sum(
            ops.exp(-distances / (b * scale)) for b in self.bandwidths
        ) / len(self.bandwidths)
        n = ops.shape(source)[0]
        divergence = (
            ops.mean(kernel[:n, :n])
            + ops.mean(kernel[n:, n:])
            - 2 * ops.mean(kernel[:n, n:])
        )
        self.add_loss(self.weight * divergence)
        return logits

    def compute_output_shape(self, input_shape):
        """That of the logits."""
        return input_shape[-1]

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {
            **super().get_config(),
            "weight": self.weight,
            "bandwidths": list(self.bandwidths),
        }


@keras.saving.register_keras_serializable(package="models")
class PredictionEntropy(keras.layers.Layer):
    """Adds how undecided predictions without labels are.

    weight * mean over examples of -sum_c p_c log p_c, p the softmax of logits
    `[batch, classes]`: decision boundaries move out of where the target's
    examples are.

    Called with `[logits of the target, logits]`, returns the second.

    Args:
      weight: >= 0, of the loss.

    Reference:
      Grandvalet and Bengio, Semi-supervised learning by entropy minimization,
      NIPS 2004.
    """

    def __init__(self, weight=0.1, **kwargs):
        super().__init__(**kwargs)
        _check_weight(weight)
        self.weight = weight

    def call(self, inputs):
        undecided, logits = inputs
        log_p = ops.log_softmax(ops.cast(undecided, "float32"))
        entropy = -ops.sum(ops.exp(log_p) * log_p, axis=-1)
        self.add_loss(self.weight * ops.mean(entropy))
        return logits

    def compute_output_shape(self, input_shape):
        """That of the second."""
        return input_shape[-1]

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {**super().get_config(), "weight": self.weight}


def _check_weight(weight):
    if not 0 <= weight < float("inf"):
        raise ValueError(
            "Invalid value for argument weight. Expected a finite number >= 0. "
            f"Received: weight={weight!r}"
        )
