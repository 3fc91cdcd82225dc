"""Checks of arguments, with one wording."""

from __future__ import annotations

import math
import numbers


def choice(name: str, value, choices) -> None:
    """Raises ValueError unless value is one of choices."""
    # A list is never one of them, and is not hashable: no set.
    if not any(type(value) is type(c) and value == c for c in choices):
        raise ValueError(
            f"Invalid value for argument {name}. Expected one of "
            f"{quoted(choices)}. Received: {name}={value!r}"
        )


def quoted(choices) -> str:
    """Choices as a set, in their order: `{'a', 'b'}`."""
    return f"{{{', '.join(repr(c) for c in choices)}}}"


def is_integer(value) -> bool:
    """Whether value is an integer, NumPy's included, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def integer(name: str, value, least: int) -> int:
    """The value as int; raises ValueError unless an integer >= least."""
    if not is_integer(value) or value < least:
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= "
            f"{least}. Received: {name}={value!r}"
        )
    return int(value)


def is_number(value) -> bool:
    """Whether value is a finite real number and no bool."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def not_negative(name: str, value) -> float:
    """The value as float; raises ValueError unless finite and >= 0."""
    if not is_number(value) or value < 0:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a finite number "
            f">= 0. Received: {name}={value!r}"
        )
    return float(value)


def fraction(name: str, value) -> float:
    """The value as float; raises ValueError unless in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a number in [0, 1]. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def share(name: str, value) -> float:
    """The value as float; raises ValueError unless in (0, 1]."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a number in (0, 1]. "
            f"Received: {name}={value!r}"
        )
    return float(value)
