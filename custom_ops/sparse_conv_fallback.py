"""The sparse convolution in plain TensorFlow: a dense one with zeros."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def sparse_conv2d(
    x,
    kernel,
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

    NaN in the input spreads through zeros of the kernel here.
    """
    if data_format == "NCHW":  # not on every CPU
        x = tf.transpose(x, [0, 2, 3, 1])
    if x.shape.rank not in (None, 4):
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"Expected an input of four axes. Received: {x.shape}.",
        )
    channels = x.shape[-1] if x.shape.rank else None
    if channels not in (None, kernel_shape[2] * groups):
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"The input {x.shape} has {channels} channels, the kernel "
            f"{kernel_shape} with {groups} groups reads "
            f"{kernel_shape[2] * groups}.",
        )
    dense = _dilated(kernel, kernel_shape, dilations)
    pads = (
        [[0, 0], explicit_paddings[:2], explicit_paddings[2:], [0, 0]]
        if padding == "EXPLICIT"
        else padding
    )
    # Bank by bank: gradients of grouped convolutions are not on every CPU.
    banks = zip(
        tf.split(x, groups, axis=-1),
        tf.split(dense, groups, axis=-1),
        strict=True,
    )
    y = tf.concat(
        [tf.nn.conv2d(part, bank, strides, pads) for part, bank in banks], -1
    )
    if bias.shape[0] != 0:
        y = tf.nn.bias_add(y, bias)
    if activation == "relu":
        y = tf.nn.relu(y)
    return tf.transpose(y, [0, 3, 1, 2]) if data_format == "NCHW" else y


def _dilated(kernel, shape, dilations):
    """The kernel with its zeros, those between its taps included."""
    height, width, channels, filters = shape
    window = [(n - 1) * d + 1 for n, d in zip(shape, dilations, strict=False)]
    positions, last = kernel.positions, channels * filters
    row, rest = positions // (width * last), positions % (width * last)
    column, inner = rest // last, rest % last
    positions = (
        row * dilations[0] * window[1] + column * dilations[1]
    ) * last + inner
    full = [*window, channels, filters]
    values = tf.cast(kernel.values, tf.float32)
    return tf.reshape(
        tf.scatter_nd(positions[:, None], values, [int(np.prod(full))]), full
    )
