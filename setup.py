"""Builds custom_ops' shared library with CMake where that is possible.

Metadata is in pyproject.toml; this file only adds the command `build_ops`,
which leaves two files in the package `custom_ops` (in place for an editable
install, inside the wheel otherwise):

  libcustom_ops.so  the kernels and TensorFlow ops, if they were compiled;
  build_info.json   {"built": true, "reason": null, "tensorflow": "2.21.0",
                    "compiler": "g++ ...", "cuda": null, "flags": [...]},
                    or {"built": false, "reason": "what was missing", ...}.

Without a compiler, without CMake, or where TensorFlow is not visible to the
build (pip's build isolation), the package is pure Python and uses its
TensorFlow fallbacks. The environment variable TF_TERNGRAD_BUILD_OPS decides
otherwise: 0 never compiles, 1 makes it an error not to. TF_TERNGRAD_BUILD_CUDA
does the same for the CUDA kernels (default: where nvcc is found).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import setuptools
from setuptools.command.build import build
from setuptools.command.build_py import build_py

_ROOT = pathlib.Path(__file__).resolve().parent
_PACKAGE = "custom_ops"
_LIBRARY = "libcustom_ops.so"
_BUILD_INFO = "build_info.json"
_INSTALL = "pip install --no-build-isolation ."

# Runs in a process of its own: TensorFlow writes to stderr while it loads,
# and a broken one must not take the installation down.
_QUERY_TENSORFLOW = """
import json, tensorflow as tf
print(json.dumps({
    "version": tf.__version__,
    "compile_flags": tf.sysconfig.get_compile_flags(),
    "link_flags": tf.sysconfig.get_link_flags(),
}))
"""


class CannotBuild(Exception):
    """Says what the build lacks and what to do about it."""


def _switch(name: str) -> bool | None:
    """Reads an environment variable that is 0, 1 or unset (None)."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(
            f"Invalid value for environment variable {name}. "
            f"Expected 0 or 1. Received: {name}={value}"
        )
    return {"": None, "0": False, "1": True}[value]


def _which(name: str) -> str | None:
    """Finds a program on PATH, or beside the Python that runs the build."""
    beside = os.path.dirname(sys.executable)
    return shutil.which(name) or shutil.which(name, path=beside)


def _find_tools() -> dict[str, str]:
    compiler = os.environ.get("CXX")
    compiler = (
        shutil.which(compiler)
        if compiler
        else _which("g++") or _which("c++") or _which("clang++")
    )
    if not compiler:
        raise CannotBuild(
            "no C++ compiler found; install one (apt-get install g++), then "
            f"run: {_INSTALL}"
        )
    cmake = _which("cmake")
    if not cmake:
        raise CannotBuild(
            "no CMake found; install it (pip install 'cmake<4'), then run: "
            f"{_INSTALL}"
        )
    if _which("ninja"):
        generator = "Ninja"
    elif _which("make"):
        generator = "Unix Makefiles"
    else:
        raise CannotBuild(
            "neither make nor ninja found; install one (apt-get install "
            f"make), then run: {_INSTALL}"
        )
    return {"compiler": compiler, "cmake": cmake, "generator": generator}


def _find_tensorflow() -> dict:
    if importlib.util.find_spec("tensorflow") is None:
        raise CannotBuild(
            "TensorFlow is not visible to the build (pip builds in isolation "
            "unless told otherwise); with TensorFlow, cmake, setuptools and "
            f"wheel installed, run: {_INSTALL}"
        )
    query = subprocess.run(
        [sys.executable, "-c", _QUERY_TENSORFLOW],
        cwd=os.path.dirname(sys.executable),  # not where our packages lie
        capture_output=True,
        text=True,
    )
    if query.returncode:
        error = (query.stderr.strip() or "no message").splitlines()[-1]
        raise CannotBuild(
            f"TensorFlow does not import ({error}); repair it, then run: "
            f"{_INSTALL}"
        )
    return json.loads(query.stdout.splitlines()[-1])


@functools.lru_cache(maxsize=1)
def plan() -> dict:
    """Finds what the build needs.

    Returns:
      A dict with `reason` None and the tools found, or with the `reason` why
      the ops are not compiled.

    Raises:
      SystemExit: TF_TERNGRAD_BUILD_OPS=1 and the ops cannot be compiled.
    """
    wanted = _switch("TF_TERNGRAD_BUILD_OPS")
    try:
        if wanted is False:
            raise CannotBuild(
                "TF_TERNGRAD_BUILD_OPS=0 was set; unset it, then run: "
                f"{_INSTALL}"
            )
        if not any((_ROOT / _PACKAGE / "tf").glob("*.cc")):
            raise CannotBuild("this source tree has no custom_ops/tf/*.cc")
        return {
            "reason": None,
            **_find_tools(),
            "tensorflow": _find_tensorflow(),
        }
    except CannotBuild as error:
        if wanted:
            raise SystemExit(f"TF_TERNGRAD_BUILD_OPS=1, but {error}") from error
        return {"reason": str(error)}


def _wants_cuda() -> bool:
    switch = _switch("TF_TERNGRAD_BUILD_CUDA")
    found = _which("nvcc") is not None
    if switch and not found:
        raise SystemExit(
            "TF_TERNGRAD_BUILD_CUDA=1, but no nvcc on PATH; install the CUDA "
            "toolkit, or unset the variable"
        )
    return found if switch is None else switch


def _run_cmake(command: list[str]) -> None:
    # A make that called pip leaves its job server's settings behind.
    hidden = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    result = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(result.stdout, end="", flush=True)
    if result.returncode:
        raise SystemExit(
            f"custom_ops does not compile: {' '.join(command)} returned "
            f"{result.returncode}, its output is above. "
            "TF_TERNGRAD_BUILD_OPS=0 installs the package without it."
        )


def compile_ops(target: pathlib.Path) -> dict:
    """Compiles the library into the folder `target`, returns its info."""
    found = plan()
    tensorflow = found["tensorflow"]
    configuration = [
        f"-DCMAKE_CXX_COMPILER={found['compiler']}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DWITH_TENSORFLOW=ON",
        f"-DWITH_CUDA={'ON' if _wants_cuda() else 'OFF'}",
        "-DTENSORFLOW_COMPILE_FLAGS=" + ";".join(tensorflow["compile_flags"]),
        "-DTENSORFLOW_LINK_FLAGS=" + ";".join(tensorflow["link_flags"]),
    ]
    # One folder for each configuration, so that a second build compiles only
    # what changed, and a moved checkout or another TensorFlow starts afresh.
    key = json.dumps([str(_ROOT), found["generator"], configuration])
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    folder = _ROOT / "build" / f"ops-tf{tensorflow['version']}-{digest}"
    _run_cmake(
        [found["cmake"], "-S", str(_ROOT / _PACKAGE), "-B", str(folder)]
        + ["-G", found["generator"], *configuration]
    )
    jobs = os.environ.get("TF_TERNGRAD_BUILD_JOBS") or str(os.cpu_count() or 1)
    _run_cmake(
        [found["cmake"], "--build", str(folder), "--parallel", jobs]
        + ["--target", _PACKAGE]
    )
    _replace(target / _LIBRARY, (folder / _LIBRARY).read_bytes())
    built = json.loads((folder / "configuration.json").read_text())
    return {
        "built": True,
        "reason": None,
        "tensorflow": tensorflow["version"],
        "compiler": built["compiler"],
        "cuda": built["cuda"] or None,
        "flags": built["flags"].split() + tensorflow["compile_flags"],
    }


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file by renaming: a running process may have it mapped."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


class BuildOps(setuptools.Command):
    description = "compile custom_ops with CMake, and record how"
    user_options = []
    editable_mode = False  # set by setuptools

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _target(self) -> pathlib.Path:
        root = _ROOT if self.editable_mode else pathlib.Path(self.build_lib)
        return root / _PACKAGE

    def run(self):
        target = self._target()
        target.mkdir(parents=True, exist_ok=True)
        reason = plan()["reason"]
        if reason is None:
            info = compile_ops(target)
        else:
            # pip shows this only with --verbose; the loader says it again.
            print(
                "custom_ops is not compiled, TensorFlow fallbacks take its "
                f"place: {reason}",
                file=sys.stderr,
            )
            (target / _LIBRARY).unlink(missing_ok=True)
            info = {
                "built": False,
                "reason": reason,
                "tensorflow": None,
                "compiler": None,
                "cuda": None,
                "flags": [],
            }
        content = json.dumps(info, indent=2) + "\n"
        _replace(target / _BUILD_INFO, content.encode())

    # What setuptools' SubCommand protocol asks for.
    def get_source_files(self):
        sources = []
        for pattern in ("CMakeLists.txt", "**/*.cc", "**/*.h"):
            sources += (_ROOT / _PACKAGE).glob(pattern)
        return sorted(str(path.relative_to(_ROOT)) for path in sources)

    def get_outputs(self):
        names = [_BUILD_INFO]
        if plan()["reason"] is None:
            names.append(_LIBRARY)
        return [str(self._target() / name) for name in names]

    def get_output_mapping(self):
        return {}


class BuildPy(build_py):
    """Starts from an empty folder: build/ may hold what is no longer ours."""

    def run(self):
        if not self.editable_mode:
            for package in self.packages or ():
                folder = os.path.join(self.build_lib, package.split(".")[0])
                shutil.rmtree(folder, ignore_errors=True)
        super().run()


class Build(build):
    sub_commands = [*build.sub_commands, ("build_ops", None)]


class Distribution(setuptools.Distribution):
    def has_ext_modules(self):
        """Decides between a platform wheel and a pure one."""
        return plan()["reason"] is None


setuptools.setup(
    cmdclass={"build": Build, "build_ops": BuildOps, "build_py": BuildPy},
    distclass=Distribution,
)
