"""Arguments of a sparse convolution as attributes of the ops."""

from __future__ import annotations

import numbers


def attributes(
    kernel_shape, strides, padding, dilations, groups, data_format
) -> dict:
    """Checks arguments of `custom_ops.sparse_conv2d`.

    Returns:
        Dict of the attributes that all ops share.

    Raises:
        ValueError: An argument is none of what it may be.
    """
    if data_format not in ("NHWC", "NCHW"):
        raise ValueError(
            "Invalid value for argument data_format. Expected one of {'NHWC', "
            f"'NCHW'}}. Received: data_format={data_format!r}"
        )
    if not _is_integer(groups, 1):
        raise ValueError(
            "Invalid value for argument groups. Expected an integer >= 1. "
            f"Received: groups={groups!r}"
        )
    name, explicit = _padding(padding)
    return dict(
        kernel_shape=list(kernel_shape),
        strides=_pair("strides", strides),
        dilations=_pair("dilations", dilations),
        padding=name,
        explicit_paddings=explicit,
        groups=int(groups),
        data_format=data_format,
    )


def _padding(padding) -> tuple[str, list[int]]:
    """Name and [top, bottom, left, right]."""
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        return padding.upper(), []
    try:
        (top, bottom), (left, right) = padding
    except (TypeError, ValueError):
        top = bottom = left = right = None
    explicit = [top, bottom, left, right]
    if not all(_is_integer(n, 0) for n in explicit):
        raise ValueError(
            "Invalid value for argument padding. Expected 'SAME', 'VALID' or "
            "((top, bottom), (left, right)), integers >= 0. Received: "
            f"padding={padding!r}"
        )
    return "EXPLICIT", [int(n) for n in explicit]


def _pair(name: str, value) -> list[int]:
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(_is_integer(n, 1) for n in pair):
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= 1, or "
            f"two. Received: {name}={value!r}"
        )
    return [int(n) for n in pair]


def _is_integer(value, least: int) -> bool:
    return (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and value >= least
    )
