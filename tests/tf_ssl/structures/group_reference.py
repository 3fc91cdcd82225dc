"""Groups of weights, one weight at a time: slow, and plain to read."""

import itertools

import numpy as np

GATES = {"lstm": 4, "gru": 3}
# kind, shape of a kernel, banks
KERNELS = [
    ("dense", (3, 4), 1),
    ("embedding", (5, 3), 1),
    ("conv", (3, 2, 4), 1),
    ("conv", (3, 2, 4, 6), 1),
    ("conv", (2, 3, 2, 4, 2), 1),
    ("conv", (3, 2, 4, 6), 2),
    ("conv", (3, 1, 6), 3),
    ("transposed", (3, 2, 4), 1),
    ("transposed", (3, 2, 4, 6), 1),
    ("depthwise", (3, 4, 2), 1),
    ("depthwise", (3, 2, 4, 2), 1),
    ("lstm", (3, 8), 1),
    ("gru", (3, 6), 1),
]
SPATIAL = ("conv", "transposed", "depthwise")


def label(spec, index, kind, shape, conv_groups):
    """The group of the weight at an index."""
    rank = len(shape)
    if spec[0] == "axis":
        axes = [axis % rank for axis in spec[1]]
        kept = [None if i in axes else n for i, n in enumerate(index)]
        return (*kept, index[-1] // (shape[-1] // conv_groups))
    # place in the filter, input channel, filter within its bank, bank
    bank = 0
    if kind == "transposed":
        *place, output, channel = index
        filters = shape[-2]
    elif kind == "depthwise":
        *place, bank, output = index
        channel, filters = 0, shape[-1]
    elif kind in GATES:  # gates are no place: what differs is summed
        place, (channel, column) = [], index
        filters = shape[-1] // GATES[kind]
        output = column % filters
    else:
        *place, channel, output = index
        filters = shape[-1] // conv_groups
        bank, output = divmod(output, filters)
    if spec[0] == "block":
        h, w = spec[1]
        column = 0
        for n, size in zip(place, shape, strict=False):
            column = column * size + n
        channels = {"transposed": shape[-1], "depthwise": 1}
        column = column * channels.get(kind, shape[-2]) + channel
        return bank, output // h, column // w
    return {
        "filter": (bank, output),
        "row": (bank, output),
        "channel": (bank, channel),
        "shape": (bank, *place, channel),
        "column": (bank, *place, channel),
        "kernel2d": (bank, channel, output),
        "layer": (),
    }[spec]


def norms(kernel, spec, kind, conv_groups, epsilon=0.0):
    """Dict from group to norm; norm of each weight's group; sizes of groups."""
    squares, sizes, labels = {}, {}, {}
    for index in itertools.product(*map(range, kernel.shape)):
        group = label(spec, index, kind, kernel.shape, conv_groups)
        labels[index] = group
        squares[group] = squares.get(group, 0.0) + float(kernel[index]) ** 2
        sizes[group] = sizes.get(group, 0) + 1
    found = {g: np.sqrt(s + epsilon) for g, s in squares.items()}
    spread = np.empty(kernel.shape)
    for index, group in labels.items():
        spread[index] = found[group]
    return found, spread, sizes


def kernel(shape, seed=0):
    """float32 numbers about 1 in size."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
