"""Force regularization: filters attract each other, so that few span all."""

from __future__ import annotations

import keras
from keras import ops

from tf_ssl import checks

NORMS = ("l1", "l2")

# Pairs that are nearer than this on the unit sphere have no force between them,
# nor have filters whose norm is below it.
NEAREST = 1e-4


@keras.saving.register_keras_serializable(package="tf_ssl")
class ForceRegularizer(keras.regularizers.Regularizer):
    """Pulls the directions of a layer's filters together.

    With W_i a filter, w_i = W_i / ||W_i||, and the force between two filters

        f_ji = w_j - w_i                      (norm="l2")
        f_ji = (w_j - w_i) / ||w_j - w_i||    (norm="l1")

    the gradient of the penalty is exactly -strength * dW_i with

        dW_i = ||W_i|| * sum_j (f_ji - (f_ji . w_i) w_i):

    tangent to the sphere on which the filter lies, so that to first order
    lengths stay. It is no gradient of a function of all filters; the value that
    is added to the loss is strength times half the sum of ||w_j - w_i||^2
    ("l2"), or the sum of ||w_j - w_i|| ("l1"), over all ordered pairs, from
    whose gradient the force differs in its step size alone. Pairs whose norm or
    distance is at most 1e-4 are skipped.

    Layers so trained need fewer basis filters at equal accuracy:
    `tf_ssl.decompose` then makes them smaller.

    Args:
        strength: Float >= 0: lambda_s of the paper.
        norm: "l1" or "l2". Defaults to "l1".
        conv_groups: `groups` of a grouped convolution: filters of different
            banks see different channels and do not attract each other.
            Defaults to 1.

    Raises:
        ValueError: An argument is none of these; when called, if the filters
            do not divide into the banks.

    The last axis of a kernel is that of the filters, as in dense and
    convolution layers.

    >>> kernel = ops.convert_to_tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> float(ForceRegularizer(0.5, norm="l2")(kernel))  # 0.5 * (2 + 2) / 2
    1.0
    >>> layer = keras.layers.Conv2D(
    ...     20, 5, kernel_regularizer=ForceRegularizer(1e-3)
    ... )

    Departure: the sums are of pairs of one bank; the authors' code takes all
    filters of a blob.

    Reference: Wen et al., "Coordinating Filters for Faster Deep Neural
    Networks", ICCV 2017, equations 1 to 5.
    """

    def __init__(self, strength, norm="l1", conv_groups=1):
        self.strength = checks.not_negative("strength", strength)
        checks.choice("norm", norm, NORMS)
        self.norm = norm
        self.conv_groups = checks.integer("conv_groups", conv_groups, 1)

    def __call__(self, x):
        """Penalty of a kernel, a scalar."""
        # A copy is a tensor where x is a variable, whose gradient TensorFlow
        # would ask for by another argument.
        x = ops.copy(x)

        @ops.custom_gradient
        def penalty(kernel):
            value, forces = _value_and_force(
                kernel, self.norm, self.conv_groups
            )

            def gradient(*args, upstream=None):
                if upstream is None:
                    (upstream,) = args
                slope = -self.strength * forces
                return ops.cast(upstream, kernel.dtype) * ops.cast(
                    slope, kernel.dtype
                )

            return self.strength * value, gradient

        return penalty(x)

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {
            "strength": self.strength,
            "norm": self.norm,
            "conv_groups": self.conv_groups,
        }


def force(kernel, norm: str = "l1", conv_groups: int = 1):
    """The forces dW on the filters of a kernel: see `ForceRegularizer`.

    Args:
        kernel: Tensor `[..., filters]`.
        norm: "l1" or "l2".
        conv_groups: Banks of filters.

    Returns:
        Tensor of the kernel's shape, float64 where the kernel is, else float32.
    """
    return _value_and_force(kernel, norm, conv_groups)[1]


def _value_and_force(kernel, norm, conv_groups):
    num_filters = kernel.shape[-1]
    if num_filters % conv_groups:
        raise ValueError(
            f"Invalid value for argument conv_groups. Expected a divisor of "
            f"the {num_filters} filters. Received: conv_groups={conv_groups}"
        )
    wide = ops.cast(kernel, "float64")
    # [banks, filters of a bank, weights of a filter]
    filters = ops.transpose(
        ops.reshape(wide, (-1, conv_groups, num_filters // conv_groups)),
        (1, 2, 0),
    )
    lengths = ops.sqrt(ops.sum(ops.square(filters), -1, keepdims=True))
    counts = ops.cast(lengths > NEAREST, "float64")  # [banks, filters, 1]
    units = counts * ops.divide_no_nan(filters, lengths)
    # Distances from cosines: in float32 two near filters would be lost.
    cosines = ops.matmul(units, ops.transpose(units, (0, 2, 1)))
    distances = ops.sqrt(ops.maximum(2.0 - 2.0 * cosines, 0.0))
    pairs = counts * ops.transpose(counts, (0, 2, 1))
    pairs *= ops.cast(distances > NEAREST, "float64")
    if norm == "l2":
        value = 0.5 * ops.sum(pairs * ops.square(distances))
        weights = pairs
    else:
        value = ops.sum(pairs * distances)
        weights = ops.divide_no_nan(pairs, distances)
    # The part of f_ji along w_i goes: of w_j its cosine, of w_i all.
    along = ops.sum(weights * cosines, -1, keepdims=True)
    forces = lengths * (ops.matmul(weights, units) - along * units)
    forces = ops.reshape(ops.transpose(forces, (2, 0, 1)), kernel.shape)
    dtype = keras.backend.standardize_dtype(kernel.dtype)
    dtype = dtype if dtype == "float64" else "float32"
    return ops.cast(value, dtype), ops.cast(forces, dtype)
