"""The fallback: TensorFlow's dense convolution, on a kernel with zeros."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from custom_ops import library, sparse_conv_grad
from custom_ops.sparse_kernel import SparseKernel


def dense_conv2d(
    x, kernel: SparseKernel, bias, activation, attributes: dict
) -> tf.Tensor:
    """See `custom_ops.sparse_conv2d`.

    Where the library is loaded, the kernel with its zeros is made once,
    TensorFlow's kernels do groups and dilations (oneDNN), and gradients are
    those of the sparse convolution. Elsewhere, and under XLA, only what every
    CPU has is used.

    NaN and infinities in the input spread through zeros of the kernel here.

    Args:
        x: As there, as are kernel, bias (perhaps of shape `[0]`) and
            activation.
        kernel: See there.
        bias: See there.
        activation: See there.
        attributes: Of the op, see `sparse_conv_arguments`.
    """
    _check_input(x, attributes)
    first = attributes["data_format"] == "NCHW"
    if first:  # not on every CPU
        x = tf.transpose(x, [0, 2, 3, 1])
    if library.ops() is None or under_xla():
        y = _portable(x, kernel, attributes)
    else:
        y = _native(x, kernel, {**attributes, "data_format": "NHWC"})
    if bias.shape[0] != 0:
        y = tf.nn.bias_add(y, bias)
    if activation == "relu":
        y = tf.nn.relu(y)
    return tf.transpose(y, [0, 3, 1, 2]) if first else y


def under_xla() -> bool:
    """Whether the graph that is being traced will be compiled by XLA."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def _check_input(x, attributes):
    """Raises what the op would."""

    def text(sizes):
        return f"[{','.join('?' if n is None else str(n) for n in sizes)}]"

    if x.shape.rank is None:
        return
    kernel, groups = attributes["kernel_shape"], attributes["groups"]
    data_format = attributes["data_format"]
    message = None
    if kernel[3] % groups:
        message = (
            f"The {kernel[3]} filters of the kernel {text(kernel)} do not "
            f"divide into {groups} groups."
        )
    elif x.shape.rank != 4:
        message = f"Expected an input of four axes. Received: {text(x.shape)}."
    else:
        channels = x.shape[1 if data_format == "NCHW" else 3]
        if channels not in (None, kernel[2] * groups):
            message = (
                f"The input {text(x.shape)} in the format {data_format} has "
                f"{channels} channels, the kernel {text(kernel)} with "
                f"{groups} groups reads {kernel[2] * groups}."
            )
    if message is not None:
        raise tf.errors.InvalidArgumentError(None, None, message)


def _pads(attributes):
    """Padding as `tf.nn.conv2d` takes it."""
    if attributes["padding"] != "EXPLICIT":
        return attributes["padding"]
    top, bottom, left, right = attributes["explicit_paddings"]
    return [[0, 0], [top, bottom], [left, right], [0, 0]]


def _conv2d(x, kernel, attributes, dilations=(1, 1)):
    """TensorFlow's convolution, NHWC; for empty results oneDNN gives x back."""
    y = tf.nn.conv2d(
        x,
        kernel,
        attributes["strides"],
        _pads(attributes),
        dilations=dilations,
    )
    shape = tf.shape(x, tf.int64)
    explicit = attributes["explicit_paddings"] or [0] * 4
    outputs = []
    for axis in range(2):
        window = (kernel.shape[axis] - 1) * dilations[axis] + 1
        if attributes["padding"] == "SAME":
            window = 1
        size = shape[axis + 1] + sum(explicit[2 * axis : 2 * axis + 2])
        stride = attributes["strides"][axis]
        outputs.append(tf.maximum((size - window) // stride + 1, 0))
    shape = tf.stack([shape[0], *outputs, kernel.shape[3]])
    # Neither copies.
    return tf.reshape(tf.reshape(y, [-1])[: tf.reduce_prod(shape)], shape)


def _native(x, kernel, attributes):
    """By oneDNN, whose gradients of groups and dilations can crash."""
    to_dense = (
        library.ops().tern_grad_ssl_import_custom_ops_sparse_kernel_to_dense
    )

    @tf.custom_gradient
    def convolve(x, values):
        dense = to_dense(
            positions=kernel.positions,
            values=values,
            kernel_shape=attributes["kernel_shape"],
        )
        y = _conv2d(x, dense, attributes, attributes["dilations"])

        def gradient(dy):
            return sparse_conv_grad.gradients(
                x, kernel.positions, values, dy, {**attributes, "kernel": ""}
            )[:2]

        return y, gradient

    return convolve(x, kernel.values)


def _portable(x, kernel, attributes):
    """Bank by bank, with the zeros between the taps of a dilated kernel."""
    banks = zip(
        tf.split(x, attributes["groups"], axis=-1),
        tf.split(
            _dilated(kernel, attributes["dilations"]),
            attributes["groups"],
            axis=-1,
        ),
        strict=True,
    )
    outputs = [_conv2d(part, bank, attributes) for part, bank in banks]
    return tf.concat(outputs, -1)


def _dilated(kernel, dilations):
    """The kernel with its zeros, those between its taps included."""
    height, width, channels, filters = kernel.shape
    window = [
        (height - 1) * dilations[0] + 1,
        (width - 1) * dilations[1] + 1,
    ]
    last = channels * filters
    row, rest = (
        kernel.positions // (width * last),
        kernel.positions % (width * last),
    )
    column, inner = rest // last, rest % last
    positions = (
        row * dilations[0] * window[1] + column * dilations[1]
    ) * last + inner
    full = [*window, channels, filters]
    values = tf.cast(kernel.values, tf.float32)
    return tf.reshape(
        tf.scatter_nd(positions[:, None], values, [int(np.prod(full))]), full
    )
