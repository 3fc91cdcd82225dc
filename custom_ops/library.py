"""The one place that loads the shared library of custom ops.

Importing never fails: where the library was not built, or was built for another
TensorFlow, the plain TensorFlow fallback serves, with one warning at first use
that says why and what to do.
"""

import ctypes
import functools
import json
import os
import pathlib

import tensorflow as tf
from absl import logging

_FOLDER = pathlib.Path(__file__).parent
_LIBRARY = _FOLDER / "libcustom_ops.so"
_BUILD_INFO = _FOLDER / "build_info.json"
_REBUILD = "pip install --no-build-isolation ."

# Set to 1 to use the fallback although the library was built.
FALLBACK_VARIABLE = "CUSTOM_OPS_FALLBACK"


def _build_info() -> dict:
    """What setup.py wrote down about the build."""
    try:
        return json.loads(_BUILD_INFO.read_text())
    except FileNotFoundError:
        return {"built": False, "reason": f"not built yet: run `{_REBUILD}`"}


def _reason_not_to_load(build: dict) -> str | None:
    """Why the fallback must serve, or None."""
    if os.environ.get(FALLBACK_VARIABLE, "") not in ("", "0"):
        return f"switched off by {FALLBACK_VARIABLE}"
    if not build.get("built"):
        return build.get("reason", "not built")
    if not _LIBRARY.exists():
        return f"{_LIBRARY} is missing: run `{_REBUILD}`"
    if build["tensorflow"] != tf.__version__:
        return (
            f"built for TensorFlow {build['tensorflow']}, this is "
            f"{tf.__version__}: run `{_REBUILD}`"
        )
    return None


@functools.cache
def _load() -> tuple[object | None, str | None]:
    """(module of generated op wrappers, None), or (None, reason)."""
    reason = _reason_not_to_load(_build_info())
    if reason is None:
        try:
            return tf.load_op_library(str(_LIBRARY)), None
        except tf.errors.NotFoundError as error:
            reason = f"it does not load: {error.message}"
    return None, reason


def ops():
    """The generated op wrappers, or None where the fallback must serve."""
    library, reason = _load()
    if library is None:
        _warn(reason)
    return library


@functools.cache
def _warn(reason: str) -> None:
    logging.warning(
        "custom_ops: using the plain TensorFlow fallback, which is slower "
        "(C++ ops: %s).",
        reason,
    )


def status() -> dict:
    """What is in use: what `python -m custom_ops.info` prints.

    Returns:
        Dict with `implementation` ("c++" or "fallback"), `reason` (why the
        fallback, else None), `isa` (instruction set of the kernels, None for
        the fallback), `sparse_conv` (dict of the instruction set `isa`, whether
        the process may run `generated_code`, and the names of the `kernels`,
        fastest first; None for the fallback), `tensorflow` (version in use) and
        `build` (compiler and versions at build time).
    """
    library, reason = _load()
    return {
        "implementation": "fallback" if library is None else "c++",
        "reason": reason,
        "isa": None if library is None else _call("ternary_isa", _Text),
        "sparse_conv": None if library is None else _sparse_conv(),
        "tensorflow": tf.__version__,
        "build": _build_info(),
    }


_Text = ctypes.c_char_p


def _call(name: str, result, *arguments):
    """A function of the C interface of core/."""
    function = getattr(ctypes.CDLL(str(_LIBRARY)), name)
    function.restype = result
    value = function(*arguments)
    return value.decode() if isinstance(value, bytes) else value


def _sparse_conv() -> dict:
    names = []
    while name := _call("sparse_conv_kernel_name", _Text, len(names)):
        names.append(name)
    return {
        "isa": _call("sparse_conv_isa", _Text),
        "generated_code": bool(
            _call("sparse_conv_executable_memory", ctypes.c_int)
        ),
        "kernels": names,
    }


def describe() -> str:
    """One line for logs, such as `C++ kernels (avx2)`."""
    state = status()
    if state["implementation"] == "c++":
        return f"C++ kernels ({state['isa']})"
    return f"plain TensorFlow fallback (C++ ops: {state['reason']})"


_load()  # at import: a saved model with these ops loads only if they are known
