"""What benchmarks/exchange.py refuses, before any work starts."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


def _run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "benchmarks/exchange.py", *arguments],
        cwd=_ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "flag, message",
    [
        (
            "--links=1gbit,fast",
            "--links: Invalid value for argument rate. Expected a number "
            "followed by bit, kbit, mbit or gbit, or None. Received: "
            "rate='fast'",
        ),
        (
            "--workers=2,0",
            "--workers: expected integers >= 1. Received: 2,0",
        ),
        (
            "--payloads=lenet5",
            "--payloads: expected some of "
            "lenet,alexnet,vgg_a,resnet50,googlenet. Received: lenet5",
        ),
    ],
)
def test_refuses_flags(flag, message):
    done = _run(flag)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr


def test_refuses_several_cells_under_a_launcher():
    done = _run("--payloads=lenet,alexnet", HOROVOD_RANK="0")
    assert done.returncode == 1
    assert (
        "--links and --payloads: expected one of each under a launcher; "
        "without one, this program starts the workers of every cell. "
        "Received: loopback and lenet,alexnet"
    ) in " ".join((done.stdout + done.stderr).split())


def test_refuses_what_does_not_fit_into_memory(tmp_path):
    done = _run("--payloads=vgg_a", "--workers=1000", f"--output={tmp_path}")
    assert done.returncode == 1
    assert (
        "loopback_1000_vgg_a: Not enough memory: 1000 workers with payload "
        "vgg_a need about 2818.0 GiB. Available: "
    ) in done.stderr
    assert done.stderr.endswith("Not measured: loopback_1000_vgg_a\n")


def test_does_not_measure_again(tmp_path):
    (tmp_path / "loopback_1000_vgg_a.json").write_text("{}")
    done = _run("--payloads=vgg_a", "--workers=1000", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "loopback_1000_vgg_a: measured before\n"
