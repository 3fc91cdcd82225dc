"""The program: flags, output, and once as a process."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import app, flags

from tf_ssl.sweep import __main__ as program
from tf_ssl.sweep.points import Point, append

_ROOT = pathlib.Path(__file__).parents[3]


def _main(*arguments):
    options = flags.FlagValues()
    program.define_flags(options)
    options(["sweep", *arguments])
    program.run(options)


def _result(folder):
    result = (
        '{\\"error\\": 0.25, \\"multiply_adds\\": 1234, \\"parameters\\": 5}'
    )
    return f'echo "{result}" > {folder}/result.json'


def test_runs_prints_and_draws(tmp_path, capfd):
    pytest.importorskip("matplotlib")
    points, image = tmp_path / "points.jsonl", tmp_path / "sweep.png"
    _main(
        "--strengths=0,1e-3",
        f"--command={_result('{workdir}')}; echo run {{strength}}",
        f"--workdir={tmp_path / 'runs'}",
        f"--points={points},{tmp_path / 'other.jsonl'}",
        "--label=lasso",
        f"--plot={image}",
    )
    printed = capfd.readouterr().out
    assert "\nrun 0\n" in printed
    assert "\nrun 0.001\n" in printed
    assert "25.00%" in printed
    assert "1,234" in printed
    assert len(points.read_text().splitlines()) == 2
    assert image.read_bytes().startswith(b"\x89PNG")


def test_as_a_process(tmp_path):
    points = tmp_path / "points.jsonl"
    append(points, Point(0, 0.125, 2, 3, 0.5, "lasso"))
    append(points, Point(1, 0.25, 9, 3, None, "lasso"))
    done = subprocess.run(
        [sys.executable, "-m", "tf_ssl.sweep", f"--points={points}"],
        cwd=_ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    best, worse = done.stdout.splitlines()[3:5]
    assert best.split() == [
        "lasso",
        "0",
        "12.50%",
        "2",
        "3",
        "0.500",
        "ms",
        "*",
    ]
    assert worse.split() == ["lasso", "1", "25.00%", "9", "3"]


def test_failing_command(tmp_path):
    with pytest.raises(SystemExit) as error:
        _main(
            "--strengths=1",
            "--command=exit 3; {workdir} {strength}",
            f"--workdir={tmp_path}",
            f"--points={tmp_path / 'points.jsonl'}",
        )
    assert str(error.value) == (
        f"The command failed with 3: exit 3; {tmp_path / '1'} 1"
    )


@pytest.mark.parametrize("texts", [[""], ["a"], ["1", "nan"]])
def test_refuses_strengths(texts):
    with pytest.raises(ValueError) as error:
        program.parse_strengths(texts)
    assert str(error.value) == (
        "Invalid value for --strengths. Expected numbers such as 0,1e-3. "
        f"Received: {','.join(texts)}"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--plot=x.png"], "--points is required: files of points."),
        (
            ["--points=a.jsonl", "--strengths=1"],
            "--strengths, --command and --workdir go together.",
        ),
        (
            ["--points=/nowhere.jsonl", "--plot=x.png"],
            "Invalid value for argument points. Expected at least one point. "
            "Received: none",
        ),
    ],
)
def test_refuses_flags(arguments, message):
    with pytest.raises(app.UsageError) as error:
        _main(*arguments)
    assert str(error.value) == message


def test_refuses_arguments():
    with pytest.raises(app.UsageError) as error:
        program.main(["sweep", "points.jsonl"])
    assert str(error.value) == "Unknown arguments: points.jsonl"
