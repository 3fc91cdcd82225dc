"""Error against cost, one curve a method."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tf_ssl.sweep.points import Point, pareto_front

_COSTS = {
    "multiply_adds": "multiply-adds of one example",
    "latency_ms": "latency, ms",
}


def save(path: str | pathlib.Path, points: Sequence[Point], title: str = ""):
    """Draws error against multiply-adds and, where measured, latency.

    Every point is a mark; a line joins the Pareto front of each method.

    Args:
        path: Image file; its ending decides the format.
        points: `Point`s, at least one.
        title: Above the plot.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: There is no point.
    """
    if not points:
        raise ValueError(
            "Invalid value for argument points. Expected at least one point. "
            "Received: none"
        )
    try:
        from matplotlib.backends import backend_agg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Install it: pip install matplotlib, or "
            f"leave out --plot. ({error})"
        ) from error
    costs = [
        cost
        for cost in _COSTS
        if any(getattr(point, cost) is not None for point in points)
    ]
    figure = Figure(figsize=(6 * len(costs), 4), layout="constrained")
    backend_agg.FigureCanvasAgg(figure)
    for number, cost in enumerate(costs, 1):
        axes = figure.add_subplot(1, len(costs), number)
        draw(axes, points, cost)
    figure.suptitle(title)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def draw(axes, points: Sequence[Point], cost: str) -> None:
    """Draws the curves of one panel.

    Args:
        axes: Of matplotlib.
        points: `Point`s.
        cost: "multiply_adds" or "latency_ms"; points without it are left out.
    """
    for label in dict.fromkeys(point.label for point in points):
        own = [p for p in points if p.label == label]
        known = [p for p in own if getattr(p, cost) is not None]
        if not known:
            continue
        front = pareto_front(own, cost)
        (line,) = axes.plot(
            [getattr(p, cost) for p in front],
            [100 * p.error for p in front],
            label=label or "points",
        )
        axes.plot(
            [getattr(p, cost) for p in known],
            [100 * p.error for p in known],
            "o",
            color=line.get_color(),
        )
        for point in known:
            axes.annotate(
                f"{point.strength:g}",
                (getattr(point, cost), 100 * point.error),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color=line.get_color(),
            )
    axes.set_xscale("log")
    axes.set_xlabel(_COSTS[cost])
    axes.set_ylabel("error, %")
    axes.grid(alpha=0.3)
    axes.legend()
