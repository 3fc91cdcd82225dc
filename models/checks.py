"""Checks of the arguments that several networks take."""

from __future__ import annotations

import math


def check_images(input_shape: tuple[int, ...], at_least: int) -> None:
    """Raises ValueError unless the shape is that of large enough images.

    Args:
      input_shape: height, width, channels.
      at_least: smallest height and width, pixels.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < at_least:
        raise ValueError(
            "Invalid value for argument input_shape. Expected (height, width, "
            f"channels) of at least {at_least} x {at_least}. "
            f"Received: input_shape={tuple(input_shape)}"
        )


def check_dropout(dropout: float, name: str = "dropout") -> None:
    """Raises ValueError unless the rate is in [0, 1).

    Args:
      dropout: rate.
      name: of the argument.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(
            f"Invalid value for argument {name}. Expected a rate in [0, 1). "
            f"Received: {name}={dropout}"
        )


def check_at_least_one(**sizes) -> None:
    """Raises ValueError unless all are integers >= 1.

    Args:
      **sizes: by name of the argument, integers or tuples of them.
    """
    for name, value in sizes.items():
        several = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(x, int) and x >= 1 for x in several):
            raise ValueError(
                f"Invalid value for argument {name}. Expected integers >= 1. "
                f"Received: {name}={value}"
            )


def check_not_negative(**values) -> None:
    """Raises ValueError unless all are finite numbers >= 0.

    Args:
      **values: by name of the argument.
    """
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(
                f"Invalid value for argument {name}. Expected a finite number "
                f">= 0. Received: {name}={value!r}"
            )


def check_one_of(name: str, value, known) -> None:
    """Raises ValueError unless the value is one of those known."""
    if value not in known:
        raise ValueError(
            f"Invalid value for argument {name}. Expected one of "
            f"{{{', '.join(map(repr, known))}}}. Received: {name}={value!r}"
        )


def check_batch_size(batch_size: int | None, stateful: bool) -> None:
    """Raises ValueError unless the batch size fits the states that stay."""
    if batch_size is not None:
        check_at_least_one(batch_size=batch_size)
    elif stateful:
        raise ValueError(
            "Invalid value for argument batch_size. Expected an integer, as a "
            "stateful model keeps a state for each row of a batch. Received: "
            "batch_size=None"
        )
