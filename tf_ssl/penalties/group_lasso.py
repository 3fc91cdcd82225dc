"""Group Lasso as a Keras regularizer."""

from __future__ import annotations

import math

import keras
from keras import ops

from tf_ssl import checks
from tf_ssl.structures import group_specs
from tf_ssl.structures import groups as groups_lib

SCALES = ("none", "sqrt", "inv_sqrt")


@keras.saving.register_keras_serializable(package="tf_ssl")
class GroupLasso(keras.regularizers.Regularizer):
    """Group Lasso: whole groups of weights go to zero together.

        strength * sum over groups g of scale(g) * sqrt(sum of w_g^2 + epsilon)
        + l1 * sum |w|

    The sub-gradient of a group is strength * scale(g) * w_g / ||w_g||, and
    exactly 0 where the group is zero. The penalty is computed in float32 under
    mixed precision.

    What a group is, by the kernel's kind; conv kernels are
    `[height, width, cin, cout]`, likewise in one and three dimensions:

    | groups | one group for each | conv axes summed | dense axes summed |
    |---|---|---|---|
    | "filter", "row" | filter or output neuron | 0, 1, 2 | 0 |
    | "channel" | input channel or neuron | 0, 1, 3 | 1 |
    | "shape", "column" | (height, width, cin) | 3 | 1 |
    | "kernel2d" | (cin, cout): a spatial kernel | 0, 1 | - |
    | "layer" | kernel | all | all |

    "row" and "column" are those of the lowered (GEMM) matrix of the paper,
    `[filters, height * width * cin]`, and for a dense kernel those of
    `[outputs, inputs]`.

    Sub-gradient descent shrinks groups but seldom hits zero: set small weights
    to zero while training, as the paper does, or let
    `tf_ssl.GroupLassoOptimizer` do the whole step.

    Args:
        strength: Float >= 0: lambda_g of the paper.
        groups: A kind of the table, or a tuple of kinds, whose penalties add;
            in a tuple also `("axis", (...))` and `("block", (h, w))`. None:
            "filter", unless `axis` or `block` is given.
        scale: Factor of each group's norm: "none" (the paper); "sqrt", the
            square root of the number of weights of the group (Yuan and Lin,
            2006); "inv_sqrt", one over it. Defaults to "none".
        kind: "dense", "conv", "transposed" (kernel `[..., cout, cin]`),
            "depthwise" (a bank for each channel), "lstm" and "gru" (kernel or
            recurrent kernel: the gates of a unit belong together),
            "embedding" ("filter" is a dimension, "channel" a token). "auto":
            rank 2 is dense, ranks 3 to 5 are conv.
        conv_groups: `groups` of a grouped convolution: no group of weights but
            "layer" crosses its banks. Defaults to 1.
        l1: Float >= 0: strength of an L1 penalty beside it. Defaults to 0.
        epsilon: Float >= 0, under the root (the talk's is 1e-8): smooth, but
            no group becomes exactly zero. Defaults to 0.
        axis: Axes of the kernel summed inside a group, beside `groups`.
        block: (h, w): blocks of h filters times w columns of the lowered
            matrix, columns in the order (height, width, cin), beside `groups`.
            They must divide it.

    Raises:
        ValueError: An argument is none of these; when called, if the kernel
            has no such groups.

    >>> kernel = ops.convert_to_tensor([[3.0, 0.0], [4.0, 0.0]])
    >>> float(GroupLasso(0.5)(kernel))  # a dense layer: two output neurons
    2.5
    >>> float(GroupLasso(0.5, groups="channel")(kernel))  # two inputs
    3.5
    >>> regularizer = GroupLasso(1e-3, groups=("filter", "shape"))
    >>> layer = keras.layers.Conv2D(20, 5, kernel_regularizer=regularizer)

    Departure: the authors' code works on the lowered matrix of Caffe, with
    columns in the order (cin, height, width); blocks are of ours.

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016, equations 2 to 5.
    """

    def __init__(
        self,
        strength,
        groups=None,
        scale="none",
        kind="auto",
        conv_groups=1,
        l1=0.0,
        epsilon=0.0,
        axis=None,
        block=None,
    ):
        self.strength = checks.not_negative("strength", strength)
        if groups is None and axis is None and block is None:
            groups = "filter"
        self.groups = (
            groups if groups is None else group_specs.normalize(groups)
        )
        checks.choice("scale", scale, SCALES)
        self.scale = scale
        checks.choice("kind", kind, groups_lib.KINDS)
        self.kind = kind
        self.conv_groups = checks.integer("conv_groups", conv_groups, 1)
        self.l1 = checks.not_negative("l1", l1)
        self.epsilon = checks.not_negative("epsilon", epsilon)
        self.axis = axis if axis is None else group_specs.axis_spec(axis)[1]
        self.block = (
            block if block is None else group_specs.block_spec(block)[1]
        )

    def partitions(self, shape) -> list[groups_lib.Partition]:
        """How a kernel is cut into groups, once for each kind of groups.

        Args:
            shape: Of the kernel.

        Raises:
            ValueError: A kernel of this shape has no such groups.
        """
        specs = []
        if self.groups is not None:
            specs += group_specs.as_tuple(self.groups)
        if self.axis is not None:
            specs.append(("axis", self.axis))
        if self.block is not None:
            specs.append(("block", self.block))
        return [
            groups_lib.partition(spec, shape, self.kind, self.conv_groups)
            for spec in specs
        ]

    def __call__(self, x):
        """Penalty of a kernel, a scalar."""
        partitions = self.partitions(x.shape)
        x = ops.convert_to_tensor(x)
        if keras.backend.standardize_dtype(x.dtype) != "float64":
            x = ops.cast(x, "float32")
        penalty = ops.zeros((), x.dtype)
        if self.strength:
            for part in partitions:
                factor = self.strength * _scale(self.scale, part.group_size)
                penalty += factor * _sum_of_norms(x, part, self.epsilon)
        if self.l1:
            penalty += self.l1 * ops.sum(ops.absolute(x))
        return penalty

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {
            "strength": self.strength,
            "groups": _as_lists(self.groups),
            "scale": self.scale,
            "kind": self.kind,
            "conv_groups": self.conv_groups,
            "l1": self.l1,
            "epsilon": self.epsilon,
            "axis": _as_lists(self.axis),
            "block": _as_lists(self.block),
        }

    def __repr__(self):
        default = {"scale": "none", "conv_groups": 1, "l1": 0.0, "epsilon": 0.0}
        shown = ", ".join(
            f"{name}={value!r}"
            for name, value in self.__dict__.items()
            if value is not None and value != default.get(name)
        )
        return f"GroupLasso({shown})"


def _scale(scale: str, group_size: int) -> float:
    if scale == "none":
        return 1.0
    root = math.sqrt(group_size)
    return root if scale == "sqrt" else 1.0 / root


def _sum_of_norms(kernel, part: groups_lib.Partition, epsilon: float):
    """Sum over groups of sqrt(sum of squares + epsilon), a scalar.

    The gradient is written here: that of a root is infinite at zero, and fewer
    operations make the step shorter.
    """

    @ops.custom_gradient
    def sum_of_norms(weights):
        view = _to_view(weights, part)
        squares = ops.sum(ops.square(view), axis=part.axes, keepdims=True)
        norms = ops.sqrt(squares + epsilon if epsilon else squares)

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            # [view] * [one a group]; 0 where a group is zero
            slope = view * ops.divide_no_nan(upstream, norms)
            return _from_view(slope, part)

        return ops.sum(norms), gradient

    return sum_of_norms(kernel)


def _to_view(kernel, part):
    if part.permutation is not None:
        kernel = ops.transpose(kernel, part.permutation)
    if tuple(kernel.shape) == part.view_shape:
        return kernel
    return ops.reshape(kernel, part.view_shape)


def _from_view(view, part):
    if part.permutation is None:
        if part.view_shape == part.kernel_shape:
            return view
        return ops.reshape(view, part.kernel_shape)
    permuted = [part.kernel_shape[axis] for axis in part.permutation]
    inverse = sorted(range(len(permuted)), key=part.permutation.__getitem__)
    return ops.transpose(ops.reshape(view, permuted), inverse)


def _as_lists(value):
    if isinstance(value, tuple):
        return [_as_lists(entry) for entry in value]
    return value
