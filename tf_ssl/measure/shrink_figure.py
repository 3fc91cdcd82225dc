"""A picture of what was shrunk: kernels before and after, to one scale."""

from __future__ import annotations

import numpy as np

from tf_ssl.measure import pictures
from tf_ssl.structures.kernels import find_kernels


def shrink_figure(before, after, patterns=("*",), threshold=0.0):
    """Zero maps of kernels before and after `shrink`, side by side.

    On the left the weights of a kernel, zeros white: units that are gone are
    strips, of rows and columns. On the right what is left of it, in a frame of
    the size that it had. Rows are what reads, columns what makes: a kernel
    `[in, out]` as it is.

    Needs matplotlib (`pip install matplotlib`).

    Args:
        before: Model with zeros.
        after: What `shrink` returned for it.
        patterns: Of kernels to draw, of rank 2, as in `tf_ssl.regularize`.
        threshold: |w| <= threshold counts as zero.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: No kernel of rank 2 matches.

    Reference: Wen et al., "Learning Intrinsic Sparse Structures within Long
    Short-Term Memory", ICLR 2018, figure 4.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "tf_ssl.shrink_figure needs matplotlib: pip install matplotlib"
        ) from error
    kernels = [k for k in find_kernels(before) if len(k.variable.shape) == 2]
    chosen = [k for k in kernels if any(k.matches(p) for p in patterns)]
    if not chosen:
        raise ValueError(
            "Invalid value for argument patterns. Expected patterns that match "
            "a kernel of rank 2, one of "
            f"{[kernel.name for kernel in kernels]}. "
            f"Received: patterns={patterns!r}"
        )
    left = {k.name: k.variable for k in find_kernels(after)}
    drawing = Figure(figsize=(10, 2.6 * len(chosen)), layout="constrained")
    grid = drawing.subplots(len(chosen), 2, squeeze=False)
    for axes, kernel in zip(grid, chosen, strict=True):
        shape = tuple(kernel.variable.shape)
        for ax, variable, when in (
            (axes[0], kernel.variable, "before"),
            (axes[1], left.get(kernel.name), "after"),
        ):
            ax.set(xticks=[], yticks=[])
            if variable is None:
                ax.set_title(f"{kernel.name} {when}: gone", fontsize="small")
                continue
            rows, columns = variable.shape
            ax.imshow(
                pictures.zero_map(variable, threshold=threshold).T,
                cmap="gray",
                vmin=0,
                vmax=pictures.WHITE,
                aspect="auto",
                interpolation="nearest",
                extent=(0, columns, rows, 0),
            )
            ax.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
            ax.set_facecolor("lightblue")
            zeros = np.mean(np.abs(np.asarray(variable)) <= threshold)
            ax.set_title(
                f"{kernel.name} {when}: {rows} x {columns}, {zeros:.0%} zero",
                fontsize="small",
            )
    return drawing
