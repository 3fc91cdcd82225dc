"""Checks of arguments, with one wording."""

import math


def choice(name: str, value, choices) -> None:
    """Raises ValueError unless value is one of choices."""
    if value not in choices:
        expected = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"Invalid value for argument {name}. Expected one of "
            f"{{{expected}}}. Received: {name}={value!r}"
        )


def integer(name: str, value, least: int) -> None:
    """Raises ValueError unless value is an int64 >= least."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or not least <= value < 2**63:
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= "
            f"{least}. Received: {name}={value!r}"
        )


def positive_float(name: str, value) -> float:
    """The value as float; raises ValueError unless finite and > 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a finite number "
            f"> 0. Received: {name}={value!r}"
        )
    return float(value)
