"""The flag --group_lasso: which kernels carry which groups, how strongly."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_FORM = "[PATTERN@]KIND[+KIND...]:STRENGTH"
_BLOCK = re.compile(r"block(\d+)x(\d+)")
ALL_KERNELS = "*"

HELP = (
    f"Group Lasso on kernels: {_FORM}, more of them after commas, such as "
    "conv*@filter+channel:0.005,fc*@column:0.001. KIND: filter, channel, "
    "shape, kernel2d, layer, row, column, block4x2 (4 filters times 2 columns) "
    "or l1; + gives each the same strength. PATTERN: of names of layers or "
    "paths of kernels, the last that fits counts; default: all kernels, the "
    "output layer's too."
)


def parse(items: Sequence[str]) -> dict[str, list[dict]]:
    """Reads the parts of the flag.

    >>> parse(["conv*@filter+shape:0.005", "conv*@l1:1e-4"])
    {'conv*': [{'strength': 0.005, 'groups': ('filter', 'shape')},
               {'strength': 0.0, 'l1': 0.0001}]}

    Args:
      items: each `[PATTERN@]KIND[+KIND...]:STRENGTH`.

    Returns:
      For each pattern the arguments of its `tf_ssl.GroupLasso`s, whose
      penalties add.

    Raises:
      ValueError: a part has another form, or a strength is negative.
    """
    penalties: dict[str, list[dict]] = {}
    for item in items:
        head, separator, number = item.rpartition(":")
        pattern, at, kinds = head.rpartition("@")
        strength = _strength(number)
        kinds = kinds.split("+")
        is_complete = separator and all(kinds) and (pattern or not at)
        if not is_complete or strength is None:
            raise _wrong(item)
        of_pattern = penalties.setdefault(pattern or ALL_KERNELS, [])
        groups = tuple(_groups(kind) for kind in kinds if kind != "l1")
        if groups:
            groups = groups if len(groups) > 1 else groups[0]
            of_pattern.append({"strength": strength, "groups": groups})
        if "l1" in kinds:
            of_pattern.append({"strength": 0.0, "l1": strength})
    return penalties


def _groups(kind: str):
    block = _BLOCK.fullmatch(kind)
    if block:
        return ("block", tuple(map(int, block.groups())))
    return kind


def _strength(text: str) -> float | None:
    try:
        strength = float(text)
    except ValueError:
        return None
    return strength if 0 <= strength < math.inf else None


def _wrong(item: str) -> ValueError:
    return ValueError(
        f"Invalid value for flag --group_lasso. Expected {_FORM} with a finite "
        f"strength >= 0. Received: {item!r}"
    )
