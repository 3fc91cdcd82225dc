"""Points of a sweep: what one strength gave, one line of JSON each."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Point:
    """A trained model.

    Attributes:
        strength: Of the penalty, or what else the method turns.
        error: Of the model, a fraction in [0, 1].
        multiply_adds: Of one example.
        parameters: Number of weights.
        latency_ms: Median of one call, milliseconds; None: not measured.
        label: Of the method, such as "group lasso": one curve each.
    """

    strength: float
    error: float
    multiply_adds: int
    parameters: int
    latency_ms: float | None = None
    label: str = ""

    def __post_init__(self):
        for name in ("strength", "error", "multiply_adds", "parameters"):
            _check_number(name, getattr(self, name))
        if self.latency_ms is not None:
            _check_number("latency_ms", self.latency_ms)


def _check_number(name, value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(
            f"Invalid value for argument {name}. Expected a finite number. "
            f"Received: {name}={value!r}"
        )


def append(path: str | pathlib.Path, point: Point) -> None:
    """Adds a line to a file of points; makes the file and its folder."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(dataclasses.asdict(point)) + "\n")


def read(path: str | pathlib.Path) -> list[Point]:
    """Points of a file; none if it does not exist.

    Raises:
        ValueError: A line is no point.
    """
    path = pathlib.Path(path)
    points = []
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            points.append(Point(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Invalid line {number} of {path}. Expected a point with "
                f"{[f.name for f in dataclasses.fields(Point)]}. Received: "
                f"{line} ({error})"
            ) from error
    return points


def pareto_front(
    points: Iterable[Point], cost: str = "multiply_adds"
) -> list[Point]:
    """Points that no other beats in both error and cost.

    Args:
        points: `Point`s.
        cost: "multiply_adds", "parameters" or "latency_ms". Points without it
            are left out.

    Returns:
        In the order of cost; of equal points the first.

    >>> cheap, good, bad = (Point(s, e, m, 1) for s, e, m in
    ...                     [(2, 0.2, 10), (0, 0.1, 50), (1, 0.3, 20)])
    >>> pareto_front([good, bad, cheap]) == [cheap, good]
    True
    """
    known = [p for p in points if getattr(p, cost) is not None]
    front: list[Point] = []
    for point in sorted(known, key=lambda p: (getattr(p, cost), p.error)):
        if not front or point.error < front[-1].error:
            front.append(point)
    return front
