"""Strided convolutions whose windows leave out the end of what they read."""

from __future__ import annotations

import keras

from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.walk import build_graph

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def with_explicit_padding(model: keras.Model) -> keras.Model:
    """A model for LiteRT that computes the same.

    Where strides are larger than windows, "same" padding may be less than none:
    the last window ends before its input does. XNNPACK, LiteRT's default
    delegate, then pads in a wrong way (TensorFlow 2.21: kernel 2, stride 4, 16
    positions give numbers that have nothing to do with the right ones). Such
    layers become "valid" ones, behind a ZeroPadding where another axis is
    padded.

    Args:
        model: Built `keras.Model`.

    Returns:
        The model itself if it has no such layers, of sizes that are known, or
        does not open.
    """
    try:
        graph = build_graph(model, lambda layer: False)
    except ValueError:  # a subclass with code that does not open
        return model
    paddings: dict = {}
    for call in graph.calls():
        layer = call.op
        if type(layer) in _CONVOLUTIONS and layer.padding == "same":
            shape = call.input_shapes[0]
            paddings.setdefault(layer, set()).add(_padding(layer, shape))
    successors = {
        layer: _successors(layer, *found)
        for layer, found in paddings.items()
        if len(found) == 1 and any(n < 0 for n in next(iter(found)))
    }
    return replace_layers(model, successors, graph) if successors else model


def _padding(layer, shape) -> tuple[int, ...]:
    """Positions that "same" adds to each axis; 0 where a size is not known."""
    first = layer.data_format == "channels_first"
    sizes = shape[2:] if first else shape[1:-1]
    found = []
    for size, kernel, stride, dilation in zip(
        sizes,
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
        strict=True,
    ):
        if size is None:
            return (0,) * len(sizes)
        window = (kernel - 1) * dilation + 1
        found.append((-(-size // stride) - 1) * stride + window - size)
    return tuple(found)


def _successors(layer, padding) -> list[keras.Layer]:
    valid = type(layer).from_config({**layer.get_config(), "padding": "valid"})
    first = layer.data_format == "channels_first"
    channels = layer.input_spec.axes[1 if first else -1]
    shape = [None] * (len(padding) + 2)
    shape[1 if first else -1] = channels
    valid.build(tuple(shape))
    valid.set_weights(layer.get_weights())
    if all(n <= 0 for n in padding):
        return [valid]
    sides = [(max(n, 0) // 2, max(n, 0) - max(n, 0) // 2) for n in padding]
    options = {
        "data_format": layer.data_format,
        "name": f"{layer.name}_padding",
        "dtype": layer.dtype_policy,
    }
    if len(padding) == 1:
        return [keras.layers.ZeroPadding1D(sides[0], **options), valid]
    return [keras.layers.ZeroPadding2D(sides, **options), valid]
