"""Gradients of one step before and after: float, clipped, ternary, average.

Reference: TernGrad, NIPS 2017, section 3.3, which shows such histograms.
"""

import math

import numpy as np

from tf_terngrad import ternary

_ROWS_PER_PAGE = 6
_LABELED_LEVELS = 9


def pages(plt, record: dict):
    """Yields figures: a row a variable, six rows a page.

    Args:
        plt: `matplotlib.pyplot`.
        record: From `records.make`.
    """
    names = record["names"]
    num_pages = math.ceil(len(names) / _ROWS_PER_PAGE)
    for page in range(num_pages):
        first = page * _ROWS_PER_PAGE
        members = range(first, min(first + _ROWS_PER_PAGE, len(names)))
        figure, axes = plt.subplots(
            len(members),
            4,
            figsize=(15, 1.2 + 2.3 * len(members)),
            squeeze=False,
            layout="constrained",
        )
        number = f", page {page + 1} of {num_pages}" if num_pages > 1 else ""
        figure.suptitle(
            f"Gradients before and after, step {int(record['step'])}, "
            f"N = {int(record['num_workers'])} workers{number}\n"
            f"{record['compression']}",
            fontsize=11,
        )
        for row, i in zip(axes, members, strict=True):
            _row(plt, row, record, i)
        titles = (
            "float, average of workers",
            f"clipped at {float(record['clip_factor']):g}σ, average of workers",
            "ternary, one worker",
            "ternary, average of workers",
        )
        labels = ("gradient", "gradient", "level", "sum of levels")
        for k in range(4):
            axes[0, k].set_title(titles[k])
            axes[-1, k].set_xlabel(labels[k])
        yield figure


def _row(plt, row, record, i):
    size, sigma = int(record["sizes"][i]), float(record["sigma"][i])
    row[0].set_ylabel(f"{record['names'][i]}\n\ncount of {size:,}", fontsize=9)
    clip_level = float(record["clip_factor"]) * sigma
    clips = size >= ternary.MIN_CLIPPED_SIZE and np.isfinite(clip_level)
    # The same axis before and after: clipping is what is missing.
    reach = 1.05 * max(record["float_limit"][i], clip_level if clips else 0.0)
    for ax, kind in zip(row[:2], ("float", "clipped"), strict=True):
        counts, limit = record[f"{kind}_counts"][i], record[f"{kind}_limit"][i]
        edges = np.linspace(-limit, limit, counts.size + 1)
        ax.stairs(counts, edges, fill=True, color="0.55")
        ax.set_xlim(-reach, reach)
        ax.set_yscale("log")
        # Room for the text above; a count of 1 is seen.
        ax.set_ylim(0.5, 12 * max(1, counts.max()))
        ax.yaxis.set_minor_locator(plt.NullLocator())
        ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 2))
        if clips:
            for edge in (-clip_level, clip_level):
                ax.axvline(edge, color="tab:red", lw=0.9, ls=":")
    dotted = f", dotted: ±{float(record['clip_factor']):g}σ" if clips else ""
    _annotate(row[0], f"σ = {sigma:.2g}{dotted}")
    _annotate(
        row[1],
        f"length {100 * (record['length_ratio'][i] - 1):+.1f} %, "
        f"direction {record['angle'][i]:.1f}°",
    )
    scaler = float(record["scaler"][i])
    _levels(row[2], record["ternary_levels"][i], "tab:blue", "s", scaler)
    _levels(row[3], record["average_levels"][i], "tab:orange", "s/N", scaler)


def _levels(ax, counts, color, unit, scaler):
    """Bars for the levels -n..n."""
    most = counts.size // 2
    levels = np.arange(-most, most + 1)
    bars = ax.bar(levels, counts, width=0.6, color=color)
    if counts.size <= _LABELED_LEVELS:
        ax.set_xticks(levels)
        parts = 100 * counts / max(1, counts.sum())
        ax.bar_label(bars, [f"{part:.1f} %" for part in parts], fontsize=7)
    ax.set_ylim(0, 1.35 * max(1, counts.max()))
    _annotate(ax, f"1 stands for {unit} = {scaler / most:.2g}")


def _annotate(ax, text):
    ax.text(0.02, 0.96, text, transform=ax.transAxes, va="top", fontsize=8)
