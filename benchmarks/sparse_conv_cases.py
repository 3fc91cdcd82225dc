"""Layers and masks that benchmarks/sparse_conv.py measures."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with SAME padding.

    Attributes:
        name: `<network>/<layer>`.
        size: Height and width of its input.
        channels: Of its input.
        filters: Of its output.
        kernel: Height and width of the kernel.
        stride: Of both axes.
        groups: Banks of filters.
    """

    name: str
    size: int
    channels: int
    filters: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def shape(self):
        """Of the kernel `[kh, kw, channels / groups, filters]`."""
        inner = self.channels // self.groups
        return (self.kernel, self.kernel, inner, self.filters)

    @property
    def out_size(self):
        return -(-self.size // self.stride)

    def flops(self, batch):
        """Of the dense convolution."""
        return 2 * batch * self.out_size**2 * int(np.prod(self.shape))


ALEXNET = (
    Layer("alexnet/conv2", 27, 96, 256, 5, 1, 2),
    Layer("alexnet/conv3", 13, 256, 384, 3),
    Layer("alexnet/conv4", 13, 384, 384, 3, 1, 2),
    Layer("alexnet/conv5", 13, 384, 256, 3, 1, 2),
)
RESNET_3X3 = tuple(
    Layer(f"resnet50/3x3_{size}", size, filters, filters, 3)
    for size, filters in ((56, 64), (28, 128), (14, 256), (7, 512))
)
# The first convolution of a stage: the stride is in the 3x3 (v1.5), or in the
# 1x1 as in Keras.
RESNET_STRIDE = tuple(
    Layer(f"resnet50/3x3_{size}_stride2", size, filters, filters, 3, 2)
    for size, filters in ((56, 128), (28, 256), (14, 512))
) + (Layer("resnet50/1x1_56_stride2", 56, 256, 512, 1, 2),)
RESNET_1X1 = tuple(
    Layer(f"resnet50/1x1_{size}_{a}_{b}", size, a, b, 1)
    for size, filters in ((56, 64), (28, 128), (14, 256), (7, 512))
    for a, b in ((filters, 4 * filters), (4 * filters, filters))
)
MOBILENET_V2 = tuple(
    Layer(f"mobilenetv2/{kind}_{size}_{a}_{b}", size, a, b, 1)
    for size, narrow in ((56, 24), (28, 32), (14, 64), (14, 96), (7, 160))
    for kind, a, b in (
        ("expand", narrow, 6 * narrow),
        ("project", 6 * narrow, narrow),
    )
) + (
    Layer("mobilenetv2/stem", 224, 3, 32, 3, 2),
    Layer("mobilenetv2/depthwise_28", 28, 192, 192, 3, 1, 192),
    Layer("mobilenetv2/last", 7, 320, 1280, 1),
)
OTHERS = (
    Layer("alexnet/conv1", 227, 3, 96, 11, 4),
    Layer("resnet50/stem", 224, 3, 64, 7, 2),
)
SPARSEPROP = Layer("sparseprop/own", 32, 128, 128, 3)

# (layer, fraction of dead columns, of dead rows): SSL on AlexNet as the talk
# has it, with its CPU speed-up.
TALK = tuple(
    zip(
        ALEXNET,
        (0.632, 0.769, 0.847, 0.807),
        (0.129, 0.406, 0.469, 0.0),
        (3.37, 6.27, 9.73, 4.93),
        strict=True,
    )
)
# LeNet's layers with what SSL left: (layer, live filters, live weights of a
# filter). Rows LeNet-4 and LeNet-5 of the paper's table 2.
_LENET = (
    Layer("lenet/conv1", 28, 1, 20, 5),
    Layer("lenet/conv2", 12, 20, 50, 5),
)
LENET = (
    ("LeNet-4", _LENET[0], 2, 21),
    ("LeNet-4", _LENET[1], 50, 41),
    ("LeNet-5", _LENET[0], 1, 7),
    ("LeNet-5", _LENET[1], 50, 14),
)


def random_mask(layer, sparsity, rng):
    return rng.random(layer.shape) >= sparsity


def _keep(count, live, rng):
    """Of `count`, `live` at random."""
    kept = np.zeros(count, bool)
    kept[rng.permutation(count)[:live]] = True
    return kept


def columns_mask(layer, dead_columns, dead_rows, rng):
    """Whole columns (weights of a filter) and rows (filters) are dead."""
    *window, filters = layer.shape
    columns = int(np.prod(window))
    kept = _keep(columns, round(columns * (1 - dead_columns)), rng)
    rows = _keep(filters, round(filters * (1 - dead_rows)), rng)
    return (kept[:, None] & rows).reshape(layer.shape)


def shapes_mask(layer, live_filters, live_weights, rng):
    """So many filters live, and so many weights in each."""
    *window, filters = layer.shape
    kept = _keep(int(np.prod(window)), live_weights, rng)
    rows = _keep(filters, live_filters, rng)
    return (kept[:, None] & rows).reshape(layer.shape)


def blocks_mask(layer, filters, channels, sparsity, rng):
    """Blocks of filters x channels at one tap live or are dead."""
    taps, inner, outer = layer.kernel**2, layer.shape[2], layer.shape[3]
    live = rng.random((taps, inner // channels, outer // filters)) >= sparsity
    mask = live.repeat(channels, axis=1).repeat(filters, axis=2)
    return mask.reshape(layer.shape)
