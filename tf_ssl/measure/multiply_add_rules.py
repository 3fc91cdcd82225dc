"""How many multiply-adds a call of a layer takes, by class of layer."""

from __future__ import annotations

import math

import keras

from tf_ssl.measure.multiply_add_table import UnknownError, multiply_add_rule
from tf_ssl.sparse.layers import Constant, SparseConv2D, SparseDense, Weight


def _size(variable) -> int:
    return math.prod(variable.shape)


def _positions(shape, data_format) -> int:
    """Batch times positions of an image, sequence or volume."""
    if data_format == "channels_first":
        return shape[0] * math.prod(shape[2:])
    return math.prod(shape[:-1])


@multiply_add_rule(Weight, Constant)
def _source(layer, call):
    return 0


@multiply_add_rule(keras.layers.Embedding)
def _embedding(layer, call):
    # ReversibleEmbedding has the argument: features times the whole table.
    if not call.argument("reverse"):
        return 0
    return math.prod(call.input_shapes[0]) * layer.input_dim


@multiply_add_rule(keras.layers.Dense)
def _dense(layer, call):
    # [..., features] times [features, units].
    return math.prod(call.input_shapes[0][:-1]) * _size(layer.kernel)


@multiply_add_rule(keras.layers.EinsumDense)
def _einsum_dense(layer, call):
    shapes = [call.input_shapes[0], tuple(layer.kernel.shape)]
    return _einsum(layer.equation, shapes)


@multiply_add_rule(
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
def _conv(layer, call):
    # A grouped kernel is [..., channels / groups, filters], a depthwise one
    # [..., channels, multiplier]: each weight is used once a position.
    positions = _positions(call.output_shapes[0], layer.data_format)
    return positions * _size(layer.kernel)


@multiply_add_rule(SparseConv2D)
def _sparse_conv(layer, call):
    positions = _positions(call.output_shapes[0], layer.data_format)
    return positions * layer.num_nonzeros


@multiply_add_rule(SparseDense)
def _sparse_dense(layer, call):
    return math.prod(call.input_shapes[0][:-1]) * layer.num_nonzeros


@multiply_add_rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def _separable_conv(layer, call):
    # The pointwise kernel works on what the strided depthwise one leaves.
    positions = _positions(call.output_shapes[0], layer.data_format)
    return positions * (
        _size(layer.depthwise_kernel) + _size(layer.pointwise_kernel)
    )


@multiply_add_rule(
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
def _transposed_conv(layer, call):
    # Each position of the input is spread by the whole kernel.
    positions = _positions(call.input_shapes[0], layer.data_format)
    return positions * _size(layer.kernel)


_CELLS = (
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
)


@multiply_add_rule(keras.layers.RNN)
def _rnn(layer, call):
    cells = getattr(layer.cell, "cells", [layer.cell])
    for cell in cells:
        if not isinstance(cell, _CELLS):
            name = type(cell).__name__
            raise UnknownError(
                f"its cell {name} has no rule; add one for the layer with "
                f"@tf_ssl.multiply_add_rule({type(layer).__name__})"
            )
    batch_size, steps = call.input_shapes[0][:2]
    return (
        batch_size
        * steps
        * sum(
            _size(cell.kernel) + _size(cell.recurrent_kernel) for cell in cells
        )
    )


@multiply_add_rule(keras.layers.Bidirectional)
def _bidirectional(layer, call):
    return _rnn(layer.forward_layer, call) + _rnn(layer.backward_layer, call)


@multiply_add_rule(
    keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D
)
def _conv_lstm(layer, call):
    cell = layer.cell
    shape = call.output_shapes[0]
    if layer.return_sequences:  # [batch, steps, ...]
        shape = (shape[0], *shape[2:])
    positions = _positions(shape, cell.data_format)
    return (
        call.input_shapes[0][1]
        * positions
        * (_size(cell.kernel) + _size(cell.recurrent_kernel))
    )


@multiply_add_rule(
    keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention
)
def _multi_head_attention(layer, call):
    query = call.argument("query").shape
    value = call.argument("value").shape
    key = call.argument("key")
    key = value if key is None else key.shape
    heads, key_dim = layer._query_dense.kernel.shape[-2:]
    value_dim = layer._value_dense.kernel.shape[-1]
    axes = getattr(layer, "_attention_axes", (1,))
    sources = math.prod(value[a] for a in axes)
    queries = math.prod(query[:-1])
    total = math.prod(key[:-1]) * _size(layer._key_dense.kernel)
    total += math.prod(value[:-1]) * _size(layer._value_dense.kernel)
    for name in ("_query_dense", "_gate_dense", "_output_dense"):
        dense = getattr(layer, name, None)
        total += queries * _size(dense.kernel) if dense is not None else 0
    # Every query with every source: scores, then the weighted sum of values.
    return total + queries * sources * heads * (key_dim + value_dim)


@multiply_add_rule(keras.layers.Attention, keras.layers.AdditiveAttention)
def _attention(layer, call):
    # [batch, targets, features], [batch, sources, features]
    query, value = call.input_shapes[:2]
    # Added scores are sums of tanh, with weights only where they are scaled.
    if isinstance(layer, keras.layers.AdditiveAttention):
        scored = query[-1] if layer.use_scale else 0
    else:
        scored = query[-1] if layer.score_mode == "dot" else 0
    return math.prod(query[:-1]) * value[-2] * (scored + value[-1])


@multiply_add_rule(keras.layers.Dot)
def _dot_layer(layer, call):
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(call.output_shapes[0]) * call.input_shapes[0][axis]


@multiply_add_rule("Matmul", "Dot")
def _matmul(operation, call):
    first = call.input_shapes[0]
    return math.prod(call.output_shapes[0]) * (first[-1] if first else 1)


@multiply_add_rule("Einsum")
def _einsum_operation(operation, call):
    return _einsum(operation.subscripts, call.input_shapes)


@multiply_add_rule("DotProductAttention")
def _dot_product_attention(operation, call):
    # [batch, targets, heads, features], [batch, sources, heads, features]
    query, key, value = call.input_shapes[:3]
    return math.prod(query[:-1]) * key[1] * (query[-1] + value[-1])


def _einsum(equation: str, shapes: list[tuple]) -> int:
    """Multiply-adds of an einsum of two operands: the product of all sizes.

    >>> _einsum("...d,dh->...h", [(2, 5, 3), (3, 4)])
    120
    """
    operands = equation.replace(" ", "").partition("->")[0].split(",")
    if len(operands) > 2:
        raise UnknownError(
            "its multiply-adds depend on the order in which the "
            f"{len(operands)} operands of {equation} are multiplied"
        )
    sizes: dict = {}
    for labels, shape in zip(operands, shapes, strict=True):
        first, dots, last = labels.partition("...")
        # What the dots stand for is aligned at its end, as in broadcasting.
        hidden = len(shape) - len(first) - len(last) if dots else 0
        keys = [*first, *range(-hidden, 0), *last]
        for key, size in zip(keys, shape, strict=True):
            sizes[key] = max(size, sizes.get(key, 1))
    return math.prod(sizes.values()) if len(operands) > 1 else 0
