"""Which kernels are used, and what is said when they are not."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

import custom_ops
from custom_ops import info as info_module
from custom_ops import library


def test_fallback_is_chosen_by_the_environment(monkeypatch):
    monkeypatch.setenv("CUSTOM_OPS_FALLBACK", "1")
    assert (
        library._reason_not_to_load({"built": True})
        == "switched off by CUSTOM_OPS_FALLBACK"
    )


def test_a_library_of_another_tensorflow_is_not_loaded(compiled):
    build = {"built": True, "tensorflow": "2.4.1"}
    assert library._reason_not_to_load(build) == (
        f"built for TensorFlow 2.4.1, this is {tf.__version__}: run "
        "`pip install --no-build-isolation .`"
    )


def test_the_reason_of_the_build_is_told(tmp_path, monkeypatch):
    build_info = tmp_path / "build_info.json"
    build_info.write_text(
        json.dumps({"built": False, "reason": "no C++ compiler found"})
    )
    monkeypatch.setattr(library, "_BUILD_INFO", build_info)
    assert (
        library._reason_not_to_load(library._build_info())
        == "no C++ compiler found"
    )


def test_without_build_info_it_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "_BUILD_INFO", tmp_path / "missing.json")
    assert library._reason_not_to_load(library._build_info()) == (
        "not built yet: run `pip install --no-build-isolation .`"
    )


def test_status_and_description_agree(compiled):
    status = custom_ops.status()
    assert status["implementation"] == "c++"
    assert custom_ops.describe() == f"C++ kernels ({status['isa']})"
    assert info_module.lines()[0] == f"custom_ops: {custom_ops.describe()}"


def test_status_of_the_sparse_convolution(compiled):
    state = custom_ops.status()["sparse_conv"]
    assert state["isa"] in ("scalar", "avx2", "avx512")
    assert state["kernels"][-1] == "scalar"
    assert state["generated_code"] == any(
        name.endswith("_jit") for name in state["kernels"]
    )
    code = "generated code" if state["generated_code"] else "no generated code"
    assert info_module.lines()[1].startswith(
        f"sparse convolution: {state['isa']}, {code}"
    )


@pytest.mark.slow
def test_generated_code_is_refused_by_the_environment(compiled):
    run = subprocess.run(
        [sys.executable, "-m", "custom_ops.info"],
        env={"SPARSE_CONV_JIT": "0", "SPARSE_CONV_ISA": "avx2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no generated code (executable memory is refused, or " in run.stdout
    assert "avx512" not in run.stdout.splitlines()[1]


@pytest.mark.slow
def test_fallback_warns_once():
    script = (
        "import custom_ops, numpy as np\n"
        "for _ in range(3):\n"
        "    custom_ops.ternary_scalers([np.ones([3], np.float32)], None, 0)\n"
        "print(custom_ops.describe())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"CUSTOM_OPS_FALLBACK": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == (
        "plain TensorFlow fallback (C++ ops: switched off by "
        "CUSTOM_OPS_FALLBACK)\n"
    )
    warning = (
        "custom_ops: using the plain TensorFlow fallback, which is slower "
        "(C++ ops: switched off by CUSTOM_OPS_FALLBACK)."
    )
    assert run.stderr.count(warning) == 1


@pytest.mark.parametrize("num_workers", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("size", [0, 1, 27, 1000])
def test_num_words(num_workers, size):
    digits = custom_ops.digits_per_word(num_workers)
    assert (2 * num_workers + 1) ** digits <= 2**64
    assert (2 * num_workers + 1) ** (digits + 1) > 2**64
    words = custom_ops.num_words(size, num_workers)
    assert (words - 1) * digits < size <= words * digits or size == words == 0
