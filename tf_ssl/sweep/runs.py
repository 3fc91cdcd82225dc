"""One command after the other over strengths; what is done stays done."""

from __future__ import annotations

import json
import pathlib
import shlex
import subprocess
from collections.abc import Callable, Sequence

from tf_ssl.sweep.points import Point, append, read

_NEEDED = ("error", "multiply_adds", "parameters")


def sweep(
    strengths: Sequence[float],
    command: str,
    workdir: str | pathlib.Path,
    points: str | pathlib.Path,
    label: str = "",
    report: Callable[[str], None] = lambda text: None,
) -> list[Point]:
    """Runs a command for each strength and gathers a point from each run.

    A strength whose point is in the file, under the same label, is not run
    again; a run that was interrupted is started again with the same workdir.

    Args:
        strengths: Of the penalty.
        command: Line for the shell, with `{strength}` and `{workdir}` in it.
        workdir: Folder of the runs' folders, `<workdir>/<label>-<strength>`.
        points: File to read and to add to.
        label: Of the method.
        report: Told of each run as it begins.

    Returns:
        The points of these strengths, in their order.

    Raises:
        ValueError: The command lacks a place, a workdir holds a run of another
            command, or a run left no result.
        subprocess.CalledProcessError: A command failed. Points before it are in
            the file.
    """
    for place in ("{strength}", "{workdir}"):
        if place not in command:
            raise ValueError(
                "Invalid value for argument command. Expected a command with "
                f"{place} in it. Received: command={command!r}"
            )
    done = {(p.label, p.strength): p for p in read(points)}
    found = []
    for strength in strengths:
        point = done.get((label, strength))
        if point is None:
            run = pathlib.Path(workdir) / f"{_slug(label)}{_text(strength)}"
            line = command.replace("{strength}", _text(strength))
            line = line.replace("{workdir}", shlex.quote(str(run)))
            _claim(run, line)
            report(line)
            subprocess.run(line, shell=True, check=True)
            point = read_result(run, strength, label)
            append(points, point)
        found.append(point)
    return found


def _text(strength: float) -> str:
    """All digits; no point where none is needed."""
    return repr(float(strength)).removesuffix(".0")


def _slug(label: str) -> str:
    kept = "".join(c if c.isalnum() else "_" for c in label)
    return f"{kept}-" if kept else ""


def _claim(run: pathlib.Path, line: str) -> None:
    """Notes the command in the run's folder; refuses that of another one."""
    note = run / "command.txt"
    if note.is_file() and note.read_text("utf-8") != line:
        raise ValueError(
            f"The folder {run} holds a run of another command: "
            f"{note.read_text('utf-8')}. Expected: {line}. Take another "
            "--workdir or --label, or remove it."
        )
    run.mkdir(parents=True, exist_ok=True)
    note.write_text(line, "utf-8")


def read_result(
    run: str | pathlib.Path, strength: float, label: str = ""
) -> Point:
    """The point that a run left in its folder.

    It is made of `result.json`, an object with error, multiply_adds,
    parameters and perhaps latency_ms; what is not there is taken from the last
    line of `metrics.jsonl`, in which val_accuracy stands for error as well.

    Args:
        run: Folder.
        strength: Of the point.
        label: Of the point.

    Raises:
        ValueError: Something is missing.
    """
    run = pathlib.Path(run)
    values: dict = {}
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text("utf-8").splitlines() if metrics.is_file() else []
    result = run / "result.json"
    try:
        if lines:
            values |= json.loads(lines[-1])
            if "val_accuracy" in values:
                values.setdefault("error", 1 - values["val_accuracy"])
        if result.is_file():
            values |= json.loads(result.read_text("utf-8"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"A result in {run} is no JSON: {error}") from error
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise ValueError(
            f"No result in {run}. Expected result.json, or a last line of "
            f"metrics.jsonl, with {', '.join(_NEEDED)} and perhaps latency_ms. "
            f"Missing: {', '.join(missing)}"
        )
    return Point(
        strength,
        *(values[name] for name in _NEEDED),
        values.get("latency_ms"),
        label,
    )
