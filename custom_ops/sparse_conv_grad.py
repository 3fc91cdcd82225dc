"""Gradients of the ops of the sparse convolution.

It is linear in its input and in its values, so that gradients of gradients are
made of the same three ops.
"""

from __future__ import annotations

import tensorflow as tf

from custom_ops import library

_PREFIX = "TernGradSSL>ImportCustomOps>"
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


def _op(name):
    """The generated wrapper of an op."""
    return getattr(library.ops(), f"tern_grad_ssl_import_custom_ops_{name}")


def forward(x, positions, values, bias, attributes, activation="none"):
    """The convolution."""
    return _op("sparse_conv2d")(
        input=x,
        positions=positions,
        values=values,
        bias=bias,
        activation=activation,
        **attributes,
    )


def _grad_input(x_shape, positions, values, dy, attributes):
    return _op("sparse_conv2d_grad_input")(
        input_shape=x_shape,
        positions=positions,
        values=values,
        grad_output=dy,
        **attributes,
    )


def _grad_values(x, positions, dy, dtype, attributes):
    values, bias = _op("sparse_conv2d_grad_values")(
        input=x, positions=positions, grad_output=dy, **attributes
    )
    return tf.cast(values, dtype), bias


def _attributes(op):
    attributes = {name: op.get_attr(name) for name in _NAMES}
    for name in ("padding", "data_format", "kernel"):
        attributes[name] = tf.compat.as_str(attributes[name])
    return attributes


def gradients(x, positions, values, dy, attributes):
    """Of input, values and bias, from that of the output before activation."""
    shape = tf.shape(x, out_type=tf.int64)
    dx = _grad_input(shape, positions, values, dy, attributes)
    return dx, *_grad_values(x, positions, dy, values.dtype, attributes)


@tf.RegisterGradient(f"{_PREFIX}SparseConv2D")
def _gradient(op, dy):
    x, positions, values, bias = op.inputs
    if tf.compat.as_str(op.get_attr("activation")) == "relu":
        dy = tf.raw_ops.ReluGrad(gradients=dy, features=op.outputs[0])
    dx, dvalues, dbias = gradients(x, positions, values, dy, _attributes(op))
    # Without a bias it has the shape [0].
    return dx, None, dvalues, dbias[: tf.size(bias)]


@tf.RegisterGradient(f"{_PREFIX}SparseConv2DGradInput")
def _gradient_of_grad_input(op, ddx):
    _, positions, values, dy = op.inputs
    attributes = _attributes(op)
    ddy = forward(ddx, positions, values, tf.zeros([0]), attributes)
    dvalues, _ = _grad_values(ddx, positions, dy, values.dtype, attributes)
    return None, None, dvalues, ddy


@tf.RegisterGradient(f"{_PREFIX}SparseConv2DGradValues")
def _gradient_of_grad_values(op, dvalues, dbias):
    x, positions, dy = op.inputs
    attributes = _attributes(op)
    shape = tf.shape(x, out_type=tf.int64)
    dx = _grad_input(shape, positions, dvalues, dy, attributes)
    ddy = forward(x, positions, dvalues, dbias, attributes)
    return dx, None, ddy
