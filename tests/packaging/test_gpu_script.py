"""tools/build_horovod_gpu.sh refuses what does not fit, before it builds."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _program(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return path


@pytest.fixture
def build(tmp_path):
    """Runs the script on a Python and an nvcc that only give answers."""

    def run(tensorflow="2.21.0 /include 12.5.1 80,90", nvcc="12.4", nccl=""):
        # -c: what TensorFlow is; -: where NCCL is.
        python = _program(
            tmp_path / "python",
            f'[ "$1" = -c ] && echo "{tensorflow}" && exit\n'
            f'[ -n "{nccl}" ] && echo "{nccl}" && exit\n'
            "exit 1\n",
        )
        if not tensorflow:
            _program(python, "exit 1\n")
        _program(
            tmp_path / "cuda" / "bin" / "nvcc",
            f'echo "Cuda compilation tools, release {nvcc}, V{nvcc}.1"\n'
            if nvcc
            else "exit 1\n",
        )
        result = subprocess.run(
            ["bash", str(ROOT / "tools" / "build_horovod_gpu.sh"), str(python)],
            env=os.environ | {"CUDA_HOME": str(tmp_path / "cuda")},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert (result.returncode, result.stdout) == (1, "")
        return result.stderr.replace(str(tmp_path), "TMP")

    return run


def test_no_tensorflow(build):
    assert build(tensorflow="") == (
        "TensorFlow does not import in TMP/python. Install "
        "tensorflow[and-cuda]==2.21.0 there.\n"
    )


def test_tensorflow_without_cuda(build):
    assert build(tensorflow="2.21.0 /include none ") == (
        "TensorFlow 2.21.0 in TMP/python is built without CUDA. Install "
        "tensorflow[and-cuda]==2.21.0, or build for CPUs with "
        "tools/build_horovod.sh.\n"
    )


def test_no_nvcc(build):
    assert build(nvcc="") == "TMP/cuda/bin/nvcc does not run.\n"


def test_another_cuda(build):
    assert build(nvcc="13.0") == (
        "CUDA does not match: nvcc is 13.0 (TMP/cuda/bin/nvcc), TensorFlow "
        "2.21.0 in TMP/python is built with CUDA 12.5.1. Both must be CUDA 12: "
        "set CUDA_HOME to the folder of a CUDA 12 toolkit.\n"
    )


def test_no_nccl(build):
    assert build() == (
        "NCCL for CUDA 12 is not in TMP/python. Install nvidia-nccl-cu12, "
        "which tensorflow[and-cuda] asks for.\n"
    )
