"""Why a layer does not open, for people."""

from __future__ import annotations

import pathlib
import re
import traceback

import keras
import numpy as np
import tensorflow as tf

HINT = (
    "sizes of its input are not known: length=… states them, and the smaller "
    "model takes inputs of that length"
)


class CannotOpen(Exception):
    """The reason why a layer cannot be opened, for people."""


def said(error) -> str:
    """What went wrong in a layer's own code, and where."""
    said = f"{type(error).__name__}: {_first_line(error)}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(
            map(pathlib.Path(frame.filename).is_relative_to, _NOT_THEIRS)
        )
    ]
    if not frames:
        return said
    last = frames[-1]
    name = pathlib.Path(last.filename).name
    return f"{said}, at {name}:{last.lineno}: {last.line}"


# Where a layer's own code is not: Keras, TensorFlow, NumPy, this package.
_NOT_THEIRS = [
    pathlib.Path(module.__file__).parent for module in (keras, tf, np)
]
_NOT_THEIRS.append(pathlib.Path(__file__).parents[2])


def _first_line(error):
    """What went wrong, without what Keras puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [
        re.sub(r"\x1b\[\d+m", "", line)
        for line in lines
        if line
        and "Exception encountered when calling" not in line
        and "Could not automatically infer" not in line
        and "Error encountered" not in line
    ]
    # The first sentence is enough.
    return lines[0].split(". ")[0].rstrip(".") if lines else ""
