import json
import subprocess
import sys

import pytest

from tf_ssl.sweep.points import Point, read
from tf_ssl.sweep.runs import read_result, sweep

# Leaves a result that depends on the strength, and counts its runs.
_PROGRAM = """
import json, pathlib, sys
strength, workdir = float(sys.argv[1]), pathlib.Path(sys.argv[2])
log = workdir.parent / "runs.txt"
log.open("a").write(f"{strength}\\n")
if strength > 5:
    sys.exit(3)
(workdir / "result.json").write_text(json.dumps({
    "error": 0.01 * strength, "multiply_adds": int(100 / (1 + strength)),
    "parameters": 7}))
"""


@pytest.fixture
def command(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    return f"{sys.executable} {program} {{strength}} {{workdir}}"


def _runs(tmp_path):
    return (tmp_path / "my runs" / "runs.txt").read_text().split()


def test_runs_each_strength_once(tmp_path, command):
    workdir, points = tmp_path / "my runs", tmp_path / "points.jsonl"
    told = []
    found = sweep([0, 1e-3], command, workdir, points, "a b", told.append)
    assert found == [
        Point(0, 0.0, 100, 7, None, "a b"),
        Point(1e-3, 1e-5, 99, 7, None, "a b"),
    ]
    assert read(points) == found
    assert _runs(tmp_path) == ["0.0", "0.001"]
    assert len(told) == 2
    assert told[0] == (workdir / "a_b-0" / "command.txt").read_text()
    again = sweep([1e-3, 2, 0], command, workdir, points, "a b")
    assert [p.strength for p in again] == [1e-3, 2, 0]
    assert _runs(tmp_path) == ["0.0", "0.001", "2.0"]
    assert len(read(points)) == 3


def test_labels_are_apart(tmp_path, command):
    workdir, points = tmp_path / "my runs", tmp_path / "points.jsonl"
    sweep([1], command, workdir, points, "lasso")
    sweep([1], command, workdir, points, "l1")
    assert [p.label for p in read(points)] == ["lasso", "l1"]
    assert sorted(p.name for p in workdir.iterdir() if p.is_dir()) == [
        "l1-1",
        "lasso-1",
    ]


def test_a_failure_keeps_what_was_done(tmp_path, command):
    workdir, points = tmp_path / "my runs", tmp_path / "points.jsonl"
    with pytest.raises(subprocess.CalledProcessError) as error:
        sweep([1, 9, 2], command, workdir, points)
    assert error.value.returncode == 3
    assert [p.strength for p in read(points)] == [1]
    assert (workdir / "9" / "command.txt").is_file()
    sweep([1, 2], command, workdir, points)
    assert [p.strength for p in read(points)] == [1, 2]


def test_refuses_a_folder_of_another_command(tmp_path, command):
    workdir = tmp_path / "my runs"
    sweep([1], command, workdir, tmp_path / "points.jsonl")
    with pytest.raises(ValueError) as error:
        sweep([1], f"{command} --new", workdir, tmp_path / "other.jsonl")
    old = (workdir / "1" / "command.txt").read_text()
    assert str(error.value) == (
        f"The folder {workdir / '1'} holds a run of another command: {old}. "
        f"Expected: {old} --new. Take another --workdir or --label, or remove "
        "it."
    )


@pytest.mark.parametrize("place", ["{strength}", "{workdir}"])
def test_refuses_commands_without_places(tmp_path, place):
    command = "train {strength} {workdir}".replace(place, "x")
    with pytest.raises(ValueError) as error:
        sweep([1], command, tmp_path, tmp_path / "points.jsonl")
    assert str(error.value) == (
        f"Invalid value for argument command. Expected a command with {place} "
        f"in it. Received: command={command!r}"
    )


def test_metrics_fill_in(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(
        '{"val_accuracy": 0.5, "multiply_adds": 1}\n'
        '{"val_accuracy": 0.75, "multiply_adds": 2, "parameters": 3}\n'
    )
    assert read_result(tmp_path, 0.1) == Point(0.1, 0.25, 2, 3)
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"multiply_adds": 9, "latency_ms": 0.5}))
    assert read_result(tmp_path, 0.1, "x") == Point(0.1, 0.25, 9, 3, 0.5, "x")
    result.write_text(json.dumps({"error": 0.125}))
    assert read_result(tmp_path, 0.1) == Point(0.1, 0.125, 2, 3)


def test_missing_results(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"val_accuracy": 0.5}\n')
    with pytest.raises(ValueError) as error:
        read_result(tmp_path, 0.1)
    assert str(error.value) == (
        f"No result in {tmp_path}. Expected result.json, or a last line of "
        "metrics.jsonl, with error, multiply_adds, parameters and perhaps "
        "latency_ms. Missing: multiply_adds, parameters"
    )
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ValueError, match="^A result in .* is no JSON: "):
        read_result(tmp_path, 0.1)
