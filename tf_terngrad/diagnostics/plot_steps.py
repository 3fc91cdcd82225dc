"""How zero fraction, clipping and bounds change over steps."""

import math

import numpy as np

from tf_terngrad import ternary
from tf_terngrad.diagnostics import measure

_PANELS_PER_ROW = 5
_TERNARY_BOUND = "E(‖g‖∞ ‖g‖₁)"
# Wide below narrow: where two lines are one, both are seen.
_BOUND_STYLES = {
    "standard": ("E‖g‖², standard SGD", dict(color="k")),
    "one_scaler": ("one scaler for all", dict(color="tab:red")),
    "layer": ("a scaler a tensor", dict(color="tab:orange", lw=3)),
    "bucketed": ("buckets of {bucket_size}", dict(color="tab:brown", ls="--")),
    "clipped": ("clipped at {clip_factor:g}σ", dict(color="tab:cyan", lw=3)),
    "clipped_bucketed": ("clipped, buckets", dict(color="tab:blue", ls="--")),
}


def zero_fraction(plt, records: list[dict]):
    """Part of each variable's elements that is sent, and arrives, as zero."""
    return _panels(
        plt,
        records,
        "Elements of ternary gradients that are zero",
        "zero fraction, %",
        list(records[0]["names"]),
        {
            "one worker": (
                100 * _over(records, "zero_fraction"),
                dict(color="tab:blue"),
            ),
            "average of workers": (
                100 * _over(records, "average_zero_fraction"),
                dict(color="tab:orange"),
            ),
        },
    )


def clipping_length(plt, records: list[dict]):
    """Change of length, in percent."""
    values = 100 * (_of_clipping(records, "length_ratio") - 1)
    return _clipping(plt, records, "length", "‖clip(g)‖ / ‖g‖ − 1, %", values)


def clipping_angle(plt, records: list[dict]):
    """Change of direction, in degrees."""
    values = _of_clipping(records, "angle")
    return _clipping(plt, records, "direction", "angle, degrees", values)


def _clipping(plt, records, what, ylabel, values):
    names = records[0]["names"][_clipped(records)]
    return _panels(
        plt,
        records,
        f"Change of {what} by clipping at {_clip_factor(records):g}σ "
        f"(tensors below {ternary.MIN_CLIPPED_SIZE} elements are not clipped)",
        ylabel,
        ["all variables", *names],
        {"mean over workers": (values, dict(color="tab:blue"))},
    )


def bounds(plt, records: list[dict]):
    """Bounds of the whole gradient, and how far they are from SGD's."""
    totals = np.stack([r["bounds"].sum(axis=1) for r in records])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), layout="constrained"
    )
    for i, bound in enumerate(measure.BOUNDS):
        label, style = _bound_style(bound, records)
        for ax, values in (
            (left, totals[:, i]),
            (right, _ratio(totals[:, i], totals[:, 0])),
        ):
            ax.plot(
                _steps(records),
                _positive(values),
                marker=".",
                label=label,
                **style,
            )
    left.set_ylabel("bound (units of the gradient, squared)")
    right.set_ylabel("bound / bound of standard SGD")
    left.set_title("Bounds")
    right.set_title("Distance to standard SGD (1)")
    for ax in (left, right):
        _finish(plt, ax)
        ax.set_yscale("log")
        ax.set_xlabel("step")
    figure.suptitle(
        f"Gradient bounds of the convergence proof: {_TERNARY_BOUND} of "
        "TernGrad and E‖g‖² of standard SGD\n"
        "(a clipped gradient is shorter: its bound may lie below)"
    )
    _legend(figure, left)
    return figure


def variable_bounds(plt, records: list[dict]):
    """The same distance, of each variable."""
    values = np.stack([r["bounds"] for r in records])  # [steps, bounds, V]
    totals = values.sum(axis=2, keepdims=True)
    values = np.concatenate([totals, values], axis=2)
    lines = {}
    for bound in ("standard", "layer", "clipped", "bucketed"):
        label, style = _bound_style(bound, records)
        ratio = _ratio(values[:, measure.BOUNDS.index(bound)], values[:, 0])
        lines[label] = (_positive(ratio), style)
    return _panels(
        plt,
        records,
        f"{_TERNARY_BOUND} of TernGrad over E‖g‖² of standard SGD",
        "ratio of bounds",
        ["all variables", *records[0]["names"]],
        lines,
        log=True,
    )


def _panels(plt, records, title, ylabel, names, lines, log=False):
    """A panel a name, on the same axes; `lines`: label -> (values, style)."""
    num_columns = min(_PANELS_PER_ROW, len(names))
    num_rows = math.ceil(len(names) / num_columns)
    figure, axes = plt.subplots(
        num_rows,
        num_columns,
        figsize=(max(8, 3 * num_columns), 1.4 + 1.9 * num_rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    if log:
        axes[0, 0].set_yscale("log")
    for i, ax in enumerate(axes.flat):
        if i >= len(names):
            ax.axis("off")
            continue
        ax.set_title(names[i], fontsize=9)
        for label, (values, style) in lines.items():
            ax.plot(
                _steps(records),
                values[:, i],
                marker=".",
                ms=3,
                label=label,
                **style,
            )
        _finish(plt, ax)
        if i + num_columns >= len(names):  # nothing below
            ax.set_xlabel("step")
            ax.tick_params(labelbottom=True)
        if i % num_columns == 0:
            ax.set_ylabel(ylabel, fontsize=9)
    figure.suptitle(title, fontsize=12)
    _legend(figure, axes[0, 0])
    return figure


def _finish(plt, ax):
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))


def _legend(figure, ax):
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels)
    )


def _bound_style(bound, records):
    label, style = _BOUND_STYLES[bound]
    bucket_size = int(records[-1]["bucket_size"])
    clip_factor = _clip_factor(records)
    label = label.format(clip_factor=clip_factor, bucket_size=bucket_size)
    return label, style


def _clip_factor(records) -> float:
    return float(records[-1]["clip_factor"])


def _clipped(records) -> np.ndarray:
    """Which variables are large enough to be clipped."""
    return records[0]["sizes"] >= ternary.MIN_CLIPPED_SIZE


def _of_clipping(records, key):
    """Of all variables together, then of each: `[steps, 1 + clipped]`."""
    totals = _over(records, f"total_{key}")[:, None]
    own = _over(records, key)[:, _clipped(records)]
    return np.concatenate([totals, own], axis=1)


def _steps(records) -> list[int]:
    return [int(record["step"]) for record in records]


def _over(records, key):
    return np.stack([record[key] for record in records])


def _ratio(values, to):
    with np.errstate(all="ignore"):
        return values / to


def _positive(values):
    """For a logarithmic axis; a gap where there is nothing to show."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
