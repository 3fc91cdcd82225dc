"""When setup.py compiles custom_ops, and what it says when it does not."""

import importlib.util
import json
import pathlib
import sys

import pytest

setuptools = pytest.importorskip("setuptools")

ROOT = pathlib.Path(__file__).resolve().parents[2]
AGAIN = "pip install --no-build-isolation ."


@pytest.fixture
def setup_py(monkeypatch):
    """setup.py as a module that has not set anything up."""
    for name in ("CXX", "TF_TERNGRAD_BUILD_OPS", "TF_TERNGRAD_BUILD_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("setup_py", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._ROOT = ROOT
    return module


@pytest.fixture
def programs(setup_py, monkeypatch):
    """The programs that setup.py finds; a test takes some away."""
    found = {"g++": "/bin/g++", "cmake": "/bin/cmake", "make": "/bin/make"}
    monkeypatch.setattr(setup_py, "_which", found.get)
    monkeypatch.setattr(
        setup_py,
        "_find_tensorflow",
        lambda: {"version": "2.21.0", "cuda": False},
    )
    return found


def test_compiles_where_everything_is_there(setup_py, programs):
    assert setup_py.plan() == {
        "reason": None,
        "compiler": "/bin/g++",
        "cmake": "/bin/cmake",
        "generator": "Unix Makefiles",
        "tensorflow": {"version": "2.21.0", "cuda": False},
    }
    assert setup_py.Distribution().has_ext_modules()


@pytest.mark.parametrize(
    "missing, reason",
    [
        (
            "g++",
            "no C++ compiler found; install one (apt-get install g++), then "
            f"run: {AGAIN}",
        ),
        (
            "cmake",
            "no CMake found; install it (pip install 'cmake<4'), then run: "
            f"{AGAIN}",
        ),
        (
            "make",
            "neither make nor ninja found; install one (apt-get install "
            f"make), then run: {AGAIN}",
        ),
    ],
)
def test_missing_program_means_pure_python(
    setup_py, programs, missing, reason, capsys, tmp_path
):
    del programs[missing]
    assert setup_py.plan() == {"reason": reason}
    assert not setup_py.Distribution().has_ext_modules()
    command = setup_py.BuildOps(setup_py.Distribution())
    command.build_lib = str(tmp_path)
    command.run()
    assert capsys.readouterr().err == (
        "custom_ops is not compiled, TensorFlow fallbacks take its place: "
        f"{reason}\n"
    )
    (info,) = (tmp_path / "custom_ops").iterdir()
    assert json.loads(info.read_text()) == {
        "built": False,
        "reason": reason,
        "tensorflow": None,
        "compiler": None,
        "cuda": None,
        "flags": [],
    }


def test_tensorflow_not_visible(setup_py, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(setup_py.CannotBuild) as error:
        setup_py._find_tensorflow()
    assert str(error.value) == (
        "TensorFlow is not visible to the build (pip builds in isolation "
        "unless told otherwise); with TensorFlow, cmake, setuptools and wheel "
        f"installed, run: {AGAIN}"
    )


def test_tensorflow_that_does_not_import(setup_py, monkeypatch):
    monkeypatch.setattr(setup_py, "_QUERY_TENSORFLOW", "import no_such_module")
    with pytest.raises(setup_py.CannotBuild) as error:
        setup_py._find_tensorflow()
    assert str(error.value) == (
        "TensorFlow does not import (ModuleNotFoundError: No module named "
        f"'no_such_module'); repair it, then run: {AGAIN}"
    )


def test_switched_off(setup_py, programs, monkeypatch):
    monkeypatch.setenv("TF_TERNGRAD_BUILD_OPS", "0")
    assert setup_py.plan()["reason"] == (
        f"TF_TERNGRAD_BUILD_OPS=0 was set; unset it, then run: {AGAIN}"
    )


def test_insisting_makes_a_skip_an_error(setup_py, programs, monkeypatch):
    monkeypatch.setenv("TF_TERNGRAD_BUILD_OPS", "1")
    del programs["g++"]
    with pytest.raises(SystemExit) as error:
        setup_py.plan()
    assert str(error.value) == (
        "TF_TERNGRAD_BUILD_OPS=1, but no C++ compiler found; install one "
        f"(apt-get install g++), then run: {AGAIN}"
    )


def test_switch_of_another_value(setup_py, monkeypatch):
    monkeypatch.setenv("TF_TERNGRAD_BUILD_OPS", "yes")
    with pytest.raises(SystemExit) as error:
        setup_py.plan()
    assert str(error.value) == (
        "Invalid value for environment variable TF_TERNGRAD_BUILD_OPS. "
        "Expected 0 or 1. Received: TF_TERNGRAD_BUILD_OPS=yes"
    )


def test_code_that_does_not_compile_is_an_error(setup_py, capfd):
    command = [sys.executable, "-c", "print('error: x'); raise SystemExit(2)"]
    with pytest.raises(SystemExit) as error:
        setup_py._run_cmake(command)
    assert str(error.value) == (
        f"custom_ops does not compile: {' '.join(command)} returned 2, its "
        "output is above. TF_TERNGRAD_BUILD_OPS=0 installs the package "
        "without it."
    )
    assert capfd.readouterr().out == "error: x\n"
