"""How a user names groups, checked and in one form."""

from __future__ import annotations

from tf_ssl import checks
from tf_ssl.structures.groups import GROUPS


def normalize(groups) -> str | tuple:
    """A group kind, or a tuple of them, in the form that `partition` takes.

    Args:
        groups: One of `GROUPS`, `("axis", (…))`, `("block", (h, w))`, or a
            tuple or list of these.

    Returns:
        The same with tuples in place of lists: hashable.

    Raises:
        ValueError: It is none of these.
    """
    if _is_single(groups):
        return _normalize_one(groups)
    if isinstance(groups, tuple | list) and groups:
        return tuple(_normalize_one(spec) for spec in groups)
    raise _unknown(groups)


def as_tuple(groups) -> tuple:
    """What `normalize` returned, always as a tuple of kinds."""
    return (groups,) if _is_single(groups) else groups


def axis_spec(axis) -> tuple:
    """The group kind whose groups are sums over these axes of the kernel.

    Raises:
        ValueError: Not different integers.
    """
    axes = (axis,) if checks.is_integer(axis) else axis
    is_tuple = isinstance(axes, tuple | list) and len(axes) > 0
    if not is_tuple or not all(checks.is_integer(a) for a in axes):
        raise ValueError(
            "Invalid value for argument axis. Expected a tuple of integers: "
            f"the axes summed inside a group. Received: axis={axis!r}"
        )
    return "axis", tuple(int(a) for a in axes)


def block_spec(block) -> tuple:
    """The group kind of blocks of h filters times w columns.

    Raises:
        ValueError: Not two integers >= 1.
    """
    is_pair = isinstance(block, tuple | list) and len(block) == 2
    if not is_pair or not all(checks.is_integer(n) and n >= 1 for n in block):
        raise ValueError(
            "Invalid value for argument block. Expected (h, w), integers >= "
            f"1: h filters times w columns. Received: block={block!r}"
        )
    return "block", tuple(int(n) for n in block)


def _is_single(groups) -> bool:
    return isinstance(groups, str) or (
        isinstance(groups, tuple | list)
        and len(groups) == 2
        and groups[0] in ("axis", "block")
    )


def _normalize_one(spec) -> str | tuple:
    if isinstance(spec, str) and spec in GROUPS:
        return spec
    if not isinstance(spec, str) and _is_single(spec):
        return {"axis": axis_spec, "block": block_spec}[spec[0]](spec[1])
    raise _unknown(spec)


def _unknown(groups) -> ValueError:
    return ValueError(
        "Invalid value for argument groups. Expected one of "
        f"{checks.quoted(GROUPS)}, or a tuple of these. "
        f"Received: groups={groups!r}"
    )
