"""Arrays of units as a few numbers.

An array that says whose each weight is repeats itself: the gates of an LSTM
are four times 0 ... H - 1, a flattened image each channel at every pixel. Read
in order it is a list of blocks of which each is affine in the digits of its
position, so that a block is

    [start, [n_1, ..., n_k], [s_1, ..., s_k]]:
    start + s_1 i_1 + ... + s_k i_k,  0 <= i_j < n_j, the last digit fastest.

What has no short list of these is kept as compressed bytes.
"""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np

# Blocks tried; more would be longer than the bytes.
_MAX_BLOCKS = 4096


def encode(units: np.ndarray) -> dict:
    """JSON-able, from which `decode` gets the same array.

    >>> encode(np.tile(np.arange(3), 4)[None])
    {'shape': [1, 12], 'blocks': [[0, [4, 3], [0, 1]]]}

    Args:
        units: Integer array.
    """
    flat = np.asarray(units, np.int32).reshape(-1)
    shape = {"shape": list(units.shape)}
    packed = {**shape, "zlib": _pack(flat)}
    blocks = _blocks(flat)
    if blocks is None:
        return packed
    return min({**shape, "blocks": blocks}, packed, key=_length)


def decode(config: dict | list) -> np.ndarray:
    """The array, int32.

    Args:
        config: Of `encode`; or nested lists, as they were saved before.
    """
    if isinstance(config, list):
        return np.array(config, np.int32)
    if "zlib" in config:
        data = zlib.decompress(base64.b64decode(config["zlib"]))
        # Little-endian on every machine.
        flat = np.frombuffer(data, "<i4").astype(np.int32)
    else:
        parts = [_values(*block) for block in config["blocks"]]
        flat = np.concatenate([np.zeros(0, np.int32), *parts])
    return flat.reshape(config["shape"])


def _pack(flat) -> str:
    data = zlib.compress(flat.astype("<i4").tobytes(), 9)
    return base64.b64encode(data).decode("ascii")


def _length(config) -> int:
    return len(json.dumps(config))


def _values(start, sizes, strides) -> np.ndarray:
    values = np.full((1,) * len(sizes), start)
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
        shape = [1] * len(sizes)
        shape[axis] = size
        values = values + stride * np.arange(size).reshape(shape)
    return values.reshape(-1).astype(np.int32)


def _blocks(flat) -> list | None:
    """Blocks, each as long as it can be; None: too many."""
    runs = _runs(flat)
    if runs is None:
        return None
    blocks = [[start, [n], [step]] for start, step, n in runs]
    while True:
        folded = _fold(blocks)
        if len(folded) == len(blocks):
            return blocks
        blocks = folded


def _runs(values) -> list | None:
    """Arithmetic runs [(start, step, length)] of an array; None: too many."""
    steps = np.diff(values.astype(np.int64))
    # Where the step changes, and the end.
    ends = np.append(np.flatnonzero(np.diff(steps)) + 1, len(steps))
    if len(ends) > 4 * _MAX_BLOCKS:
        return None
    runs, position = [], 0
    for end in ends.tolist():
        # A step that leads from one run to the next belongs to neither.
        if end > position:
            step = int(steps[position])
            runs.append((int(values[position]), step, end + 1 - position))
            position = end + 1
    if position < len(values):
        runs.append((int(values[position]), 0, len(values) - position))
    return runs if len(runs) <= _MAX_BLOCKS else None


def _fold(blocks) -> list:
    """Neighbours that differ in their start alone, by equal steps, as one."""
    folded, i = [], 0
    while i < len(blocks):
        j = i + 1
        while j < len(blocks) and blocks[j][1:] == blocks[i][1:]:
            j += 1
        starts = np.array([block[0] for block in blocks[i:j]])
        _, sizes, strides = blocks[i]
        for start, step, n in _runs(starts):
            if n == 1:
                folded.append([start, sizes, strides])
            else:
                folded.append([start, [n, *sizes], [step, *strides]])
        i = j
    return folded
