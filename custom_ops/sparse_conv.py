"""Convolution with a sparse kernel: C++ op, or plain TensorFlow.

Reference: Park et al., "Faster CNNs with Direct Sparse Convolutions and Guided
Pruning", ICLR 2017.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from custom_ops import library, sparse_conv_fallback
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
    order that does not depend on threads. Inputs meet weights only at
    positions: NaN times a zero of the kernel is nothing.

    What follows from the positions is prepared at the first call and kept;
    prepare once by keeping the `SparseKernel`, not by making it anew. Under
    XLA (`jit_compile=True`) a dense convolution computes the same.

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
        implementation: Name of a kernel of the library, for tests; "": the
            fastest here.

    Returns:
        float32 `[batch, output height, output width, filters]`, or NCHW.

    Raises:
        ValueError: An argument is none of these.
        tf.errors.InvalidArgumentError: Shapes do not fit.

    >>> kernel = SparseKernel.from_dense([[[[2.0, 0.0]]]])
    >>> sparse_conv2d(tf.ones([1, 1, 2, 1]), kernel).numpy().tolist()
    [[[[2.0, 0.0], [2.0, 0.0]]]]
    """
    if activation not in (None, *ACTIVATIONS):
        raise ValueError(
            "Invalid value for argument activation. Expected None or 'relu'. "
            f"Received: activation={activation!r}"
        )
    if data_format not in ("NHWC", "NCHW"):
        raise ValueError(
            "Invalid value for argument data_format. Expected one of {'NHWC', "
            f"'NCHW'}}. Received: data_format={data_format!r}"
        )
    padding, explicit = _padding(padding)
    attributes = dict(
        kernel_shape=list(kernel.shape),
        strides=_pair("strides", strides),
        dilations=_pair("dilations", dilations),
        padding=padding,
        explicit_paddings=explicit,
        groups=groups,
        data_format=data_format,
    )
    x = tf.convert_to_tensor(x, tf.float32)
    bias = tf.zeros([0]) if bias is None else tf.convert_to_tensor(bias)
    ops = library.ops()
    if ops is None or _under_xla():
        return sparse_conv_fallback.sparse_conv2d(
            x, kernel, bias, activation, **attributes
        )
    return ops.tern_grad_ssl_sparse_conv2d(
        input=x,
        positions=kernel.positions,
        values=kernel.values,
        bias=bias,
        activation=activation or "none",
        kernel=implementation,
        **attributes,
    )


def _under_xla() -> bool:
    """Whether the graph that is being traced will be compiled by XLA."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )


def _padding(padding):
    """Name and [top, bottom, left, right]."""
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        return padding.upper(), []
    try:
        (top, bottom), (left, right) = padding
        explicit = [int(n) for n in (top, bottom, left, right)]
    except (TypeError, ValueError):
        explicit = [-1]
    if min(explicit) < 0:
        raise ValueError(
            "Invalid value for argument padding. Expected 'SAME', 'VALID' or "
            "((top, bottom), (left, right)), integers >= 0. Received: "
            f"padding={padding!r}"
        )
    return "EXPLICIT", explicit


def _pair(name, value):
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= 1, or "
            f"two. Received: {name}={value!r}"
        )
    return pair


# --- Gradients ----------------------------------------------------------------
#
# The convolution is linear in its input and in its values, so that gradients of
# gradients are made of the same three ops.

_NAMES = (
    "kernel_shape",
    "strides",
    "dilations",
    "padding",
    "explicit_paddings",
    "groups",
    "data_format",
    "kernel",
)


def _attributes(op):
    attributes = {name: op.get_attr(name) for name in _NAMES}
    for name in ("padding", "data_format", "kernel"):
        attributes[name] = tf.compat.as_str(attributes[name])
    return attributes


def _grad_input(x_shape, positions, values, dy, attributes):
    return library.ops().tern_grad_ssl_sparse_conv2d_grad_input(
        input_shape=x_shape,
        positions=positions,
        values=values,
        grad_output=dy,
        **attributes,
    )


def _grad_values(x, positions, dy, dtype, attributes):
    values, bias = library.ops().tern_grad_ssl_sparse_conv2d_grad_values(
        input=x, positions=positions, grad_output=dy, **attributes
    )
    return tf.cast(values, dtype), bias


def _forward(x, positions, values, bias, attributes):
    return library.ops().tern_grad_ssl_sparse_conv2d(
        input=x,
        positions=positions,
        values=values,
        bias=bias,
        activation="none",
        **attributes,
    )


@tf.RegisterGradient("TernGradSSL>SparseConv2D")
def _gradient(op, dy):
    x, positions, values, bias = op.inputs
    if tf.compat.as_str(op.get_attr("activation")) == "relu":
        dy = tf.raw_ops.ReluGrad(gradients=dy, features=op.outputs[0])
    attributes = _attributes(op)
    shape = tf.shape(x, out_type=tf.int64)
    dx = _grad_input(shape, positions, values, dy, attributes)
    dvalues, dbias = _grad_values(x, positions, dy, values.dtype, attributes)
    # Without a bias it has the shape [0].
    return dx, None, dvalues, dbias[: tf.size(bias)]


@tf.RegisterGradient("TernGradSSL>SparseConv2DGradInput")
def _gradient_of_grad_input(op, ddx):
    _, positions, values, dy = op.inputs
    attributes = _attributes(op)
    ddy = _forward(ddx, positions, values, tf.zeros([0]), attributes)
    dvalues, _ = _grad_values(ddx, positions, dy, values.dtype, attributes)
    return None, None, dvalues, ddy


@tf.RegisterGradient("TernGradSSL>SparseConv2DGradValues")
def _gradient_of_grad_values(op, dvalues, dbias):
    x, positions, dy = op.inputs
    attributes = _attributes(op)
    shape = tf.shape(x, out_type=tf.int64)
    dx = _grad_input(shape, positions, dvalues, dy, attributes)
    ddy = _forward(x, positions, dvalues, dbias, attributes)
    return dx, None, ddy
