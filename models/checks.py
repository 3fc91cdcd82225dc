"""Checks of the arguments that several networks take."""

from __future__ import annotations


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


def check_dropout(dropout: float) -> None:
    """Raises ValueError unless the rate is in [0, 1)."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(
            "Invalid value for argument dropout. Expected a rate in [0, 1). "
            f"Received: dropout={dropout}"
        )
