"""The fallback: TensorFlow's dense convolution, on a kernel with zeros."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from custom_ops import library
from custom_ops.sparse_kernel import SparseKernel


def dense_conv2d(
    x,
    kernel: SparseKernel,
    bias,
    activation,
    *,
    kernel_shape,
    strides,
    dilations,
    padding,
    explicit_paddings,
    groups,
    data_format,
) -> tf.Tensor:
    """See `custom_ops.sparse_conv2d`; attributes are those of the op.

    Where the library is loaded, the kernel with its zeros is made once, and
    TensorFlow's kernels do groups and dilations (oneDNN). Elsewhere, and under
    XLA, only what every CPU has is used.

    NaN and infinities in the input spread through zeros of the kernel here.
    """
    _check_input(x, kernel_shape, groups, data_format)
    if data_format == "NCHW":  # not on every CPU
        x = tf.transpose(x, [0, 2, 3, 1])
    pads = (
        [[0, 0], explicit_paddings[:2], explicit_paddings[2:], [0, 0]]
        if padding == "EXPLICIT"
        else padding
    )
    ops = library.ops()
    if ops is None or under_xla():
        y = _in_banks(x, _dilated(kernel, dilations), strides, pads, groups)
    else:
        dense = ops.tern_grad_ssl_import_custom_ops_sparse_kernel_to_dense(
            positions=kernel.positions,
            values=kernel.values,
            kernel_shape=kernel_shape,
        )
        y = tf.nn.conv2d(x, dense, strides, pads, dilations=dilations)
    if bias.shape[0] != 0:
        y = tf.nn.bias_add(y, bias)
    if activation == "relu":
        y = tf.nn.relu(y)
    return tf.transpose(y, [0, 3, 1, 2]) if data_format == "NCHW" else y


def under_xla() -> bool:
    """Whether the graph that is being traced will be compiled by XLA."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def _check_input(x, kernel_shape, groups, data_format):
    """Raises what the op would."""
    if x.shape.rank is None:
        return
    shape = "[" + ",".join("?" if n is None else str(n) for n in x.shape) + "]"
    if x.shape.rank != 4:
        message = f"Expected an input of four axes. Received: {shape}."
        raise tf.errors.InvalidArgumentError(None, None, message)
    channels = x.shape[1 if data_format == "NCHW" else 3]
    expected = kernel_shape[2] * groups
    if channels not in (None, expected):
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"The input {shape} in the format {data_format} has {channels} "
            f"channels, the kernel [{','.join(map(str, kernel_shape))}] with "
            f"{groups} groups reads {expected}.",
        )
    if kernel_shape[3] % groups:
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"The {kernel_shape[3]} filters of the kernel "
            f"[{','.join(map(str, kernel_shape))}] do not divide into {groups} "
            "groups.",
        )


def _in_banks(x, kernel, strides, pads, groups):
    """Bank by bank: no gradients of grouped convolutions are needed."""
    banks = zip(
        tf.split(x, groups, axis=-1),
        tf.split(kernel, groups, axis=-1),
        strict=True,
    )
    outputs = [tf.nn.conv2d(part, bank, strides, pads) for part, bank in banks]
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
