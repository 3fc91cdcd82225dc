"""Error against cost over strengths.

    python -m tf_ssl.sweep --strengths=0,0.001,0.003 --label="group lasso" \
      --command="python train.py --flagfile=models/recipes/lenet.flags \
        --group_lasso=filter:{strength} --workdir={workdir} && \
        python eval.py --workdir={workdir} --shrink" \
      --workdir=runs/sweep --points=runs/sweep/points.jsonl

runs the commands one after the other, in the shell, each with its strength and
a folder of its own, and adds a point of each to --points. Points that are there
already are not run again. A command leaves `result.json` in its {workdir}:

    {"error": 0.0081, "multiply_adds": 180000, "parameters": 9000,
     "latency_ms": 0.31}

latency_ms may be missing; so may what the last line of `metrics.jsonl` holds,
where val_accuracy does for error.

    python -m tf_ssl.sweep --points=lasso.jsonl,l1.jsonl --plot=sweep.png

draws all points and the Pareto front of every label. Both can be one call.
"""

from __future__ import annotations

import math
import subprocess

from absl import app, flags
from rich import box, console, table

from tf_ssl.sweep import plot
from tf_ssl.sweep.points import Point, pareto_front, read
from tf_ssl.sweep.runs import sweep


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the program's flags in `to`."""
    for define, name, text in (
        (
            flags.DEFINE_list,
            "points",
            "Files of points; runs add to the first. Required.",
        ),
        (flags.DEFINE_string, "plot", "Image file to write."),
        (flags.DEFINE_string, "title", "Above the plot."),
        (flags.DEFINE_list, "strengths", "Numbers to run."),
        (
            flags.DEFINE_string,
            "command",
            "Command with {strength} and {workdir} in it.",
        ),
        (
            flags.DEFINE_string,
            "workdir",
            "Folder of the runs' folders; goes with --command.",
        ),
        (flags.DEFINE_string, "label", "Of the method that runs."),
    ):
        define(name, None, text, flag_values=to)


def parse_strengths(texts: list[str]) -> list[float]:
    """Numbers of --strengths.

    >>> parse_strengths(["0", "1e-3"])
    [0.0, 0.001]
    """
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(
            "Invalid value for --strengths. Expected numbers such as 0,1e-3. "
            f"Received: {','.join(texts)}"
        )
    return numbers


def _check(options):
    if not options.points:
        raise app.UsageError("--points is required: files of points.")
    together = (options.strengths, options.command, options.workdir)
    if any(together) and not all(together):
        raise app.UsageError(
            "--strengths, --command and --workdir go together."
        )


def _print(points: list[Point]):
    front = {id(p) for p in pareto_front(points)}
    grid = table.Table(box=box.SIMPLE)
    grid.add_column("label")
    for name in (
        "strength",
        "error",
        "multiply-adds",
        "parameters",
        "latency",
        "front",
    ):
        grid.add_column(name, justify="right", no_wrap=True)
    for point in points:
        grid.add_row(
            point.label,
            f"{point.strength:g}",
            f"{point.error:.2%}",
            f"{point.multiply_adds:,}",
            f"{point.parameters:,}",
            "" if point.latency_ms is None else f"{point.latency_ms:.3f} ms",
            "*" if id(point) in front else "",
        )
    console.Console(width=100, highlight=False).print(grid)


def run(options: flags.FlagValues) -> None:
    """Runs, prints, draws."""
    _check(options)
    try:
        if options.command:
            sweep(
                parse_strengths(options.strengths),
                options.command,
                options.workdir,
                options.points[0],
                options.label or "",
                report=lambda line: print(line, flush=True),
            )
        points = [point for path in options.points for point in read(path)]
        _print(points)
        if options.plot:
            plot.save(options.plot, points, options.title or "")
    except (ValueError, ImportError) as error:
        raise app.UsageError(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"The command failed with {error.returncode}: {error.cmd}"
        ) from error


def main(argv: list[str]) -> None:
    """The program."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    run(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(main)
