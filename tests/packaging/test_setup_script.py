"""tools/setup.sh names everything that is missing, in one line."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUDO = "" if os.geteuid() == 0 else "sudo "
NEEDED = ("bash", "cat", "dirname", "head", "sed")

TOOLS = ("g++", "make", "patch")

# Answers in place of a Python: version, executable, venv, headers, version.
GOOD_PYTHON = "3.11 /usr/bin/python3.11 1 1 3.11.2"


@pytest.fixture
def check(tmp_path):
    """Runs `setup.sh --check` with nothing on PATH but what is named."""

    def run(pythons=(("python3", GOOD_PYTHON),), tools=TOOLS, **env):
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in NEEDED:
            (programs / name).symlink_to(shutil.which(name))
        answers = dict(pythons) | dict.fromkeys(tools, "")
        for name, answer in answers.items():
            (programs / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
            (programs / name).chmod(0o755)
        return subprocess.run(
            ["bash", str(ROOT / "tools" / "setup.sh"), "--check"],
            env={"PATH": str(programs), "HOME": str(tmp_path), **env},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    return run


def assert_missing(result, message):
    assert result.stderr == message + "\n"
    assert result.stdout == ""
    assert result.returncode == 1


def test_nothing_missing(check):
    result = check()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_no_python(check):
    assert_missing(
        check(pythons=()),
        f"Missing: Python 3.10-3.12. Install with: {SUDO}apt-get install "
        "python3 python3-venv python3-dev",
    )


def test_python_too_new(check):
    assert_missing(
        check(pythons=[("python3", "3.13 /usr/bin/python3.13 1 1 3.13.5")]),
        "Missing: Python 3.10-3.12 (python3 is 3.13.5; PYTHON=... picks "
        f"another). Install with: {SUDO}apt-get install python3.12 "
        "python3.12-venv python3.12-dev",
    )


def test_python_that_was_named_does_not_run(check):
    assert_missing(
        check(PYTHON="/nowhere/python3"),
        "Missing: Python 3.10-3.12 (PYTHON=/nowhere/python3 does not run; "
        f"PYTHON=... picks another). Install with: {SUDO}apt-get install "
        "python3.12 python3.12-venv python3.12-dev",
    )


def test_no_venv(check):
    assert_missing(
        check(pythons=[("python3", "3.11 /usr/bin/python3.11 0 1 3.11.2")]),
        "Missing: the venv module of Python 3.11. Install with: "
        f"{SUDO}apt-get install python3.11-venv",
    )


def test_no_headers(check):
    assert_missing(
        check(pythons=[("python3", "3.10 /usr/bin/python3.10 1 0 3.10.12")]),
        "Missing: Python.h of Python 3.10. Install with: "
        f"{SUDO}apt-get install python3.10-dev",
    )


def test_a_complete_python_is_preferred_to_an_earlier_one(check):
    pythons = [
        ("python3", "3.11 /usr/bin/python3.11 0 0 3.11.2"),
        ("python3.12", "3.12 /usr/bin/python3.12 1 1 3.12.3"),
    ]
    assert check(pythons=pythons).returncode == 0


def test_no_compiler(check):
    assert_missing(
        check(tools=["make", "patch"]),
        f"Missing: a C++ compiler. Install with: {SUDO}apt-get install g++",
    )


def test_everything_missing_is_one_line(check):
    assert_missing(
        check(
            pythons=[("python3", "3.11 /usr/bin/python3.11 0 0 3.11.2")],
            tools=[],
        ),
        "Missing: the venv module of Python 3.11, Python.h of Python 3.11, a "
        f"C++ compiler, make, patch. Install with: {SUDO}apt-get install "
        "python3.11-venv python3.11-dev g++ make patch",
    )
