"""What of a model stays when it is shrunk, and why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tf_ssl.structures.analysis import Findings, Trace
from tf_ssl.structures.structure import Structures


@dataclasses.dataclass(eq=False)
class Plan:
    """What stays.

    Attributes:
        keeps: Boolean array: element -> its unit stays.
        sizes: Name of a structure -> (units before, units after).
        restored: (name of a structure, units, reason): dead units that stay.
    """

    keeps: np.ndarray
    sizes: dict
    restored: list

    def keep(self, ids) -> np.ndarray:
        """Which elements stay."""
        return self.keeps[ids]


def make_plan(
    found: Trace,
    findings: Findings,
    structures: Structures,
    roots_of: dict,
    norms_of: dict,
    min_units: int,
    round_to: int,
) -> Plan:
    """Decides what stays.

    Args:
        found: `trace(model)`.
        findings: `analyse(found)`.
        structures: Of the model.
        roots_of: Name of a structure -> roots of its units.
        norms_of: Name of a structure -> norms of its units: those with the
            largest stay where more must stay than live.
        min_units: At least so many units of a structure stay.
        round_to: Numbers of units are multiples of this where the structure
            has so many.
    """
    goes = np.zeros(len(found.roots), bool)
    restored = []
    for structure in structures:
        roots = roots_of[structure.name]
        goes[roots] = findings.removable[roots]
        live = int((~goes[roots]).sum())
        wanted = max(live, min(min_units, structure.size))
        wanted = min(math.ceil(wanted / round_to) * round_to, structure.size)
        if wanted > live:
            reason = (
                f"at least {min_units} must stay"
                if live < min_units
                else f"numbers of units are multiples of {round_to}"
            )
            dead = roots[goes[roots]]
            norms = norms_of[structure.name][goes[roots]]
            back = dead[np.argsort(-norms, kind="stable")[: wanted - live]]
            goes[back] = False
            restored.append((structure.name, len(back), reason))
    restored += _not_empty(found, goes, structures, roots_of)
    sizes = {
        s.name: (s.size, int((~goes[roots_of[s.name]]).sum()))
        for s in structures
    }
    return Plan(~goes[found.roots], sizes, restored)


def _not_empty(found, goes, structures, roots_of):
    """No tensor loses all of its units: brings one back where it would."""
    names = {int(root): s.name for s in structures for root in roots_of[s.name]}
    back: dict[str, int] = {}
    for axes in found.tracer.axes.values():
        for ids in axes.values():
            roots = found.roots[ids]
            if len(roots) and goes[roots].all():
                goes[roots[0]] = False
                name = names.get(int(roots[0]), "?")
                back[name] = back.get(name, 0) + 1
    return [
        (name, count, "a tensor must keep one unit at least")
        for name, count in back.items()
    ]
