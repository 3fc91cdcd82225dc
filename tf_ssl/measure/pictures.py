"""Pictures of what a kernel has learned to do without."""

from __future__ import annotations

import math

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.measure.sparsity import sparsity
from tf_ssl.structures import groups as groups_lib
from tf_ssl.structures.kernels import find_kernels

WHITE = 255
# Border between maps of channels.
GREY = 160
# Small weights stay visible beside zeros.
_DARKEST, _LIGHTEST = 0, 128


def filter_shapes(kernel, kind="auto", conv_groups=1, threshold=0.0):
    """Which (height, width, cin) of a convolution live, over all filters.

    >>> kernel = np.zeros([3, 3, 1, 8])
    >>> kernel[1, :, 0, 5] = 1.0
    >>> filter_shapes(kernel)[..., 0].astype(int)
    array([[0, 0, 0],
           [1, 1, 1],
           [0, 0, 0]])

    Args:
        kernel: Array, tensor or variable `[*spatial, cin, cout]`.
        kind: "conv", "transposed" or "depthwise"; "auto": "conv".
        conv_groups: Banks of a grouped convolution.
        threshold: Norms <= threshold count as zero.

    Returns:
        Booleans `[*spatial, cin]`: True where some filter has a weight.

    Raises:
        ValueError: The kernel has no spatial axes.
    """
    return _shape_norms(kernel, kind, conv_groups) > threshold


def shape_picture(kernel, kind="auto", conv_groups=1, threshold=0.0, zoom=8):
    """The learned filter shapes as one picture, a small map for each channel.

    A white cell is a (height, width, cin) that no filter uses; the darker a
    cell, the larger the norm of its weights over all filters.

    Args:
        kernel: See `filter_shapes`, as the next three.
        kind: See there.
        conv_groups: See there.
        threshold: See there.
        zoom: Pixels a cell.

    Returns:
        uint8 `[height, width]`. Three-dimensional kernels show their first
        axis as more rows of each map.

    Raises:
        ValueError: The kernel has no spatial axes, or zoom < 1.
    """
    zoom = checks.integer("zoom", zoom, 1)
    norms = _shape_norms(kernel, kind, conv_groups)
    channels = norms.shape[-1]
    maps = np.moveaxis(norms, -1, 0)
    # [channels, rows, columns]; a Conv1D has one row
    maps = maps.reshape(channels, -1, maps.shape[-1])
    maps = _shades(maps, threshold)
    maps = maps.repeat(zoom, axis=1).repeat(zoom, axis=2)
    per_row = math.ceil(math.sqrt(channels))
    num_rows = -(-channels // per_row)
    height, width = (n + 1 for n in maps.shape[1:])
    picture = np.full(
        (num_rows * height + 1, per_row * width + 1), GREY, np.uint8
    )
    for i, cells in enumerate(maps):
        top, left = (i // per_row) * height + 1, (i % per_row) * width + 1
        picture[top : top + height - 1, left : left + width - 1] = cells
    return picture


def zero_map(kernel, kind="auto", conv_groups=1, threshold=0.0, max_size=1024):
    """The lowered weight matrix: zeros white, so that dead rows are strips.

    Args:
        kernel: Array, tensor or variable.
        kind: As in `tf_ssl.GroupLasso`.
        conv_groups: Banks of a grouped convolution, drawn below each other.
        threshold: |w| <= threshold counts as zero.
        max_size: Largest height and width, pixels. Larger matrices are drawn
            with several weights a pixel, white only if all of them are zero.

    Returns:
        uint8 `[rows, columns]`: rows are filters, columns (height, width, cin);
        the darker, the larger |w|.

    Raises:
        ValueError: The kernel has no rows and columns, or max_size < 1.
    """
    max_size = checks.integer("max_size", max_size, 1)
    matrix = np.abs(lowered(kernel, kind, conv_groups))
    for axis in (0, 1):
        step = -(-matrix.shape[axis] // max_size)
        if step > 1:
            starts = np.arange(0, matrix.shape[axis], step)
            matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return _shades(matrix, threshold)


def lowered(kernel, kind="auto", conv_groups=1) -> np.ndarray:
    """A kernel as the (GEMM) matrix that the paper draws.

    Args:
        kernel: Array, tensor or variable.
        kind: As in `tf_ssl.GroupLasso`.
        conv_groups: Banks of a grouped convolution; their matrices are stacked.

    Returns:
        float64 `[filters, columns]`, columns in the order (height, width, cin);
        of depthwise kernels (height, width). Of LSTM and GRU a row is one gate
        of a unit.
    """
    value = np.asarray(keras.ops.convert_to_numpy(kernel), np.float64)
    kind = groups_lib.resolve(kind, value.shape, conv_groups)
    if kind == "transposed":
        value = np.swapaxes(value, -1, -2)
    if kind == "depthwise":  # filters: (cin, multiplier)
        value = value.reshape(*value.shape[:-2], 1, -1)
    return value.reshape(-1, value.shape[-1]).T


def figure(model, patterns=("*",), threshold=0.0, columns=2):
    """Zero maps of a model's kernels, and their filter shapes, as a figure.

    Needs matplotlib (`pip install matplotlib`).

    Args:
        model: Built Keras model.
        patterns: Patterns of the kernels to draw, as in `tf_ssl.regularize`.
        threshold: |w| <= threshold counts as zero.
        columns: Kernels side by side. Each takes two axes.

    Returns:
        `matplotlib.figure.Figure`; `figure(model).savefig("zeros.png")`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: No kernel matches.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "tf_ssl.pictures.figure needs matplotlib: pip install matplotlib"
        ) from error
    columns = checks.integer("columns", columns, 1)
    kernels = find_kernels(model)
    chosen = [k for k in kernels if any(k.matches(p) for p in patterns)]
    if not chosen:
        raise ValueError(
            "Invalid value for argument patterns. Expected patterns that match "
            "the path or the layer of a kernel, one of "
            f"{[kernel.name for kernel in kernels]}. "
            f"Received: patterns={patterns!r}"
        )
    columns = min(columns, len(chosen))
    num_rows = -(-len(chosen) // columns)
    drawing = Figure(
        figsize=(6 * columns, 2.5 * num_rows), layout="constrained"
    )
    grid = drawing.subplots(num_rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    options = {"cmap": "gray", "vmin": 0, "vmax": WHITE, "aspect": "auto"}
    for i, kernel in enumerate(chosen):
        about = (kernel.variable, kernel.kind, kernel.conv_groups)
        left = 2 * (i % columns)
        matrix, shapes = grid[i // columns][left : left + 2]
        matrix.set_axis_on()  # a frame: margins are white as zeros are
        matrix.set(xticks=[], yticks=[])
        found = sparsity(*about, threshold=threshold)
        matrix.imshow(
            zero_map(*about, threshold=threshold),
            interpolation="nearest",
            **options,
        )
        matrix.set_title(
            f"{kernel.name}\nzero: {found['element']:.0%} elements, "
            f"{found['column']:.0%} columns, {found['row']:.0%} rows",
            fontsize="small",
        )
        if has_shapes(kernel):
            picture = shape_picture(*about, threshold=threshold)
            shapes.imshow(picture, **options | {"aspect": "equal"})
            shapes.set_title("filter shapes", fontsize="small")
    return drawing


def has_shapes(kernel) -> bool:
    """Whether a `Kernel` has spatial axes of more than one position."""
    spatial = tuple(kernel.variable.shape)[:-2]
    return math.prod(spatial) > 1


def _shape_norms(kernel, kind, conv_groups) -> np.ndarray:
    """Norms over filters, `[*spatial, cin]`."""
    value = np.asarray(keras.ops.convert_to_numpy(kernel), np.float64)
    if value.ndim < 3:
        raise ValueError(
            "Invalid value for argument kernel. Expected a kernel with spatial "
            f"axes. Received: a kernel of shape {value.shape}"
        )
    part = groups_lib.partition("shape", value.shape, kind, conv_groups)
    norms = part.norms(value)
    if conv_groups == 1:
        return norms
    # [*spatial, cin of a bank, banks] -> [*spatial, banks * cin of a bank]
    norms = np.swapaxes(norms, -1, -2)
    return norms.reshape(*norms.shape[:-2], -1)


def _shades(values: np.ndarray, threshold: float) -> np.ndarray:
    """White for zero; from light to dark by the size of others."""
    threshold = checks.not_negative("threshold", threshold)
    finite = np.isfinite(values)  # what is not is as dark as can be
    largest = values[finite].max(initial=0.0) or 1.0
    sizes = np.where(finite, values, largest) / largest
    shades = _DARKEST + (_LIGHTEST - _DARKEST) * (1.0 - sizes)
    shades = np.rint(shades).astype(np.uint8)
    return np.where(values <= threshold, np.uint8(WHITE), shades)
