"""Convolution with a sparse kernel: C++ op, or plain TensorFlow.

Reference: Park et al., "Faster CNNs with Direct Sparse Convolutions and Guided
Pruning", ICLR 2017.
"""

from __future__ import annotations

import tensorflow as tf

from custom_ops import library, sparse_conv_grad
from custom_ops.plan import is_sparse_faster
from custom_ops.sparse_conv_arguments import attributes
from custom_ops.sparse_conv_dense import dense_conv2d, under_xla
from custom_ops.sparse_kernel import SparseKernel

ACTIVATIONS = ("relu",)


def sparse_conv2d(
    x,
    kernel: SparseKernel,
    strides=1,
    padding="VALID",
    dilations=1,
    groups: int = 1,
    data_format: str = "NHWC",
    bias=None,
    activation: str | None = None,
    *,
    implementation: str = "",
) -> tf.Tensor:
    """Two-dimensional convolution that computes with non-zeros only.

        y[n, i, j, o] = activation(b[o] + sum over non-zeros (u, v, c, o) of
            w * x[n, i * stride + u * dilation - pad_top,
                     j * stride + v * dilation - pad_left, c])

    Differentiable in `x`, `kernel.values` and `bias`, any number of times; the
    gradient of the kernel is that of its non-zeros. Sums are of float32, in an
    order that does not depend on threads. Under XLA (`jit_compile=True`) and
    without the library, TensorFlow's dense convolution computes the same.

    What follows from positions and sizes is prepared at the first call and
    kept; so are the weights in the order of the kernel. A call with the tensors
    of the call before does none of it again: keep the `SparseKernel`.

    Args:
        x: float32 `[batch, height, width, channels]`, or NCHW.
        kernel: `SparseKernel` of shape `[kh, kw, channels / groups, filters]`.
        strides: Integer, or (height, width).
        padding: "SAME", "VALID", or ((top, bottom), (left, right)), as in
            `tf.nn.conv2d`.
        dilations: Integer, or (height, width).
        groups: Banks of filters that each see their share of the channels.
        data_format: "NHWC" or "NCHW", of input and output.
        bias: float32 `[filters]`, or None.
        activation: None or "relu".
        implementation: "sparse", the fastest sparse kernel here; one of them
            by its name, see `custom_ops.status()`; "dense"; or "", dense where
            `custom_ops.plan` says that it is faster. It says so for a known
            height and width only; an unknown batch counts as 1.

    Returns:
        float32 `[batch, output height, output width, filters]`, or NCHW. In
        the sparse kernels inputs meet weights only at positions: NaN times a
        zero of the kernel is nothing.

    Raises:
        TypeError: The kernel is no `SparseKernel`.
        ValueError: An argument is none of these.
        tf.errors.InvalidArgumentError: Shapes do not fit (ValueError while a
            tf.function is traced).

    >>> kernel = SparseKernel.from_dense([[[[2.0, 0.0]]]])
    >>> sparse_conv2d(tf.ones([1, 1, 2, 1]), kernel).numpy().tolist()
    [[[[2.0, 0.0], [2.0, 0.0]]]]
    """
    if not isinstance(kernel, SparseKernel):
        raise TypeError(
            "Invalid type for argument kernel. Expected a SparseKernel: "
            f"SparseKernel.from_dense(kernel). Received: {type(kernel)}"
        )
    if activation not in (None, *ACTIVATIONS):
        raise ValueError(
            "Invalid value for argument activation. Expected None or 'relu'. "
            f"Received: activation={activation!r}"
        )
    arguments = attributes(
        kernel.shape, strides, padding, dilations, groups, data_format
    )
    x = tf.convert_to_tensor(x, tf.float32)
    bias = (
        tf.zeros([0])
        if bias is None
        else tf.convert_to_tensor(bias, tf.float32)
    )
    if (
        library.ops() is None
        or under_xla()
        or implementation == "dense"
        or (not implementation and not is_sparse_faster(kernel, x, arguments))
    ):
        return dense_conv2d(x, kernel, bias, activation, arguments)
    if implementation == "sparse":
        implementation = ""
    return sparse_conv_grad.forward(
        x,
        kernel.positions,
        kernel.values,
        bias,
        {**arguments, "kernel": implementation},
        activation or "none",
    )
