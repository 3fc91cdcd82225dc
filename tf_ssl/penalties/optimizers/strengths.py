"""One strength for each structure, from a number or from patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

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


def of_structures(strength, structures) -> np.ndarray:
    """Strength of each structure; NaN for those it is not meant for.

    Args:
        strength: Dict from patterns of names ("*", "?" and "[seq]" as in
            fnmatch) to numbers: the first pattern that is meant for a structure
            counts. A pattern is meant for the structures that it matches, but
            for features of the model's inputs only if it matches nothing else.
            A number is short for `{"*": number}`.
        structures: `Structure`s, or configurations of them.

    Returns:
        float64 `[structures]`.

    Raises:
        ValueError: A pattern matches no name.

    Example:
        >>> structures = [{"name": "image/input", "kind": "input"},
        ...               {"name": "conv1/filters", "kind": "filters"},
        ...               {"name": "fc/units", "kind": "units"}]
        >>> of_structures({"conv1/*": 0.5, "*": 0.1}, structures)
        array([nan, 0.5, 0.1])
        >>> of_structures({"image/*": 0.5}, structures)
        array([0.5, nan, nan])
    """
    if not isinstance(strength, Mapping):
        strength = {"*": strength}
    names = [name_of(structure) for structure in structures]
    is_input = np.array([_kind(s) == "input" for s in structures])
    values = np.full(len(names), np.nan)
    for pattern, value in strength.items():
        hits = np.array([fnmatch.fnmatchcase(n, pattern) for n in names])
        if not hits.any():
            raise ValueError(
                "Invalid value for argument strength. Expected patterns that "
                f"match names of structures: {', '.join(names)}. Received: "
                f"{pattern!r}, which matches none"
            )
        if (hits & ~is_input).any():
            hits &= ~is_input
        values[hits & np.isnan(values)] = value
    return values


def name_of(structure) -> str:
    """Name of a `Structure`, or of the configuration of one."""
    if isinstance(structure, Mapping):
        return structure["name"]
    return structure.name


def _kind(structure) -> str:
    if isinstance(structure, Mapping):
        return structure["kind"]
    return structure.kind


def _is_strength(value) -> bool:
    return checks.is_number(value) and value >= 0
