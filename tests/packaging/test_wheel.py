"""`pip wheel .` in a copy of the sources: what lies in it, and that it works.

Nothing is downloaded: the build uses the packages beside this Python.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

pytest.importorskip("setuptools")
pytest.importorskip("wheel")

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PACKAGES = ("custom_ops", "tf_terngrad", "tf_ssl")

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    return folder


def build_wheel(checkout, **environment):
    """Returns the wheel's path and pip's output."""
    target = checkout.parent / "wheel"
    result = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps"]
        + ["--no-build-isolation", "--wheel-dir", str(target), "."],
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    (wheel,) = target.glob("*.whl")
    return wheel, result.stdout


def installed(wheel):
    """Unpacks a wheel; returns the folder and its custom_ops/build_info."""
    folder = wheel.parent / "installed"
    zipfile.ZipFile(wheel).extractall(folder)
    info = json.loads((folder / "custom_ops" / "build_info.json").read_text())
    return folder, info


def run_python(folder, code):
    """Runs code that sees the unpacked wheel before any checkout."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


IMPORT = """
import custom_ops, tf_terngrad
from custom_ops import library
print(custom_ops.__file__, tf_terngrad.__file__)
print(library.status()["implementation"])
"""


def test_without_compiler_a_pure_python_wheel_that_works(checkout, tmp_path):
    # What an earlier, editable install leaves must not travel along.
    (checkout / "custom_ops" / "libcustom_ops.so").write_bytes(b"stale")
    (tmp_path / "empty").mkdir()
    wheel, output = build_wheel(checkout, PATH=str(tmp_path / "empty"), CXX="")
    assert wheel.name == "tf_terngrad_ssl-0.1.0-py3-none-any.whl"
    line = (
        "custom_ops is not compiled, TensorFlow fallbacks take its place: no "
        "C++ compiler found; install one (apt-get install g++), then run: pip "
        "install --no-build-isolation ."
    )
    assert line in output
    folder, info = installed(wheel)
    assert info["built"] is False
    assert line.endswith(info["reason"])
    assert not list(folder.rglob("*.so"))
    tops = {path.name for path in folder.iterdir()}
    assert tops <= {*PACKAGES, "tf_terngrad_ssl-0.1.0.dist-info"}
    files, implementation = run_python(folder, IMPORT).splitlines()
    assert all(file.startswith(str(folder)) for file in files.split())
    assert implementation == "fallback"


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_with_compiler_a_platform_wheel_with_the_ops(checkout):
    # nvcc would take longer than all else; the set-up has run it.
    wheel, _ = build_wheel(
        checkout, TF_TERNGRAD_BUILD_OPS="1", TF_TERNGRAD_BUILD_CUDA="0"
    )
    assert re.fullmatch(
        r"tf_terngrad_ssl-0\.1\.0-cp3\d+-cp3\d+-linux_\w+\.whl", wheel.name
    )
    folder, info = installed(wheel)
    assert info["built"] is True
    assert info["reason"] is None
    assert "-ffp-contract=off" in info["flags"]
    assert not any("fast-math" in flag for flag in info["flags"])
    files, implementation = run_python(folder, IMPORT).splitlines()
    assert all(file.startswith(str(folder)) for file in files.split())
    assert implementation == "c++"
