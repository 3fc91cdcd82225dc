"""Error against cost over strengths: points, Pareto fronts, plots, runs.

`python -m tf_ssl.sweep --help` is the program.
"""

from tf_ssl.sweep import plot
from tf_ssl.sweep.points import Point, append, pareto_front, read
from tf_ssl.sweep.runs import read_result, sweep

__all__ = [
    "Point",
    "append",
    "pareto_front",
    "plot",
    "read",
    "read_result",
    "sweep",
]
