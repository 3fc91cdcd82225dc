"""One strength for each structure, from a number or from patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

import numpy as np

from tf_ssl import checks


def check(strength) -> None:
    """Raises unless it is a number >= 0 or a dict of these by patterns."""
    if isinstance(strength, Mapping):
        if not strength:
            raise ValueError(
                "Invalid value for argument strength. Expected a number or a "
                "dict with one pattern or more. Received: strength={}"
            )
        for pattern, value in strength.items():
            if not isinstance(pattern, str) or not _is_strength(value):
                raise ValueError(
                    "Invalid value for argument strength. Expected a dict "
                    "from name patterns to finite numbers >= 0. Received: "
                    f"{{{pattern!r}: {value!r}}}"
                )
    elif not _is_strength(strength):
        raise ValueError(
            "Invalid value for argument strength. Expected a finite number "
            ">= 0 or a dict of these by name patterns. Received: "
            f"strength={strength!r}"
        )


def of_structures(strength, names: Sequence[str]) -> np.ndarray:
    """Strength of each structure.

    Args:
        strength: Number, for all; or dict from patterns of names ("*", "?" and
            "[seq]" as in fnmatch) to numbers: the first pattern that matches
            counts, and structures that none matches have strength 0.
        names: Of the structures.

    Returns:
        float64 `[structures]`.

    Raises:
        ValueError: A pattern matches no name.

    Example:
        >>> of_structures({"conv1/*": 0.5, "*": 0.1}, ["conv1/filters", "fc"])
        array([0.5, 0.1])
    """
    if not isinstance(strength, Mapping):
        return np.full(len(names), float(strength))
    for pattern in strength:
        if not any(fnmatch.fnmatchcase(n, pattern) for n in names):
            raise ValueError(
                "Invalid value for argument strength. Expected patterns that "
                f"match names of structures: {', '.join(names)}. Received: "
                f"{pattern!r}, which matches none"
            )
    return np.array([_of(strength, name) or 0.0 for name in names], float)


def takes_part(strength, structure) -> bool:
    """Whether a strength is meant for a structure.

    A number is meant for all but features of the model's inputs; a pattern for
    whatever it matches.
    """
    if isinstance(strength, Mapping):
        return _of(strength, name_of(structure)) is not None
    kind = (
        structure["kind"] if isinstance(structure, Mapping) else structure.kind
    )
    return kind != "input"


def name_of(structure) -> str:
    """Name of a `Structure`, or of the configuration of one."""
    if isinstance(structure, Mapping):
        return structure["name"]
    return structure.name


def _of(strength, name):
    for pattern, value in strength.items():
        if fnmatch.fnmatchcase(name, pattern):
            return float(value)
    return None


def _is_strength(value) -> bool:
    return checks.is_number(value) and value >= 0
