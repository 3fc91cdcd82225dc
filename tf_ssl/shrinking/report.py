"""What `tf_ssl.shrink` did."""

from __future__ import annotations

import dataclasses

import keras


@dataclasses.dataclass(eq=False)
class ShrinkReport:
    """What `shrink` did.

    Attributes:
        units: Name of a structure -> (units before, units after).
        kept: (name, units, reason): dead units that stay.
        skipped: (name, reason): what could not be followed or must stay.
        dropped: Names of sums that lost their constant inputs, such as
            residual branches.
        folded: Names of layers that took up constants of removed units.
        parameters: (before, after).
        opened: Names of composite layers whose inner layers took their place.
        training_lost: Names of composite layers that did something else in
            training, which the layers inside do not.
        inexact: What computes something else now; with `allow_inexact`.
        difference: Largest difference of an output between the model with its
            zeros and the smaller one, max|a - b| / max|a|; None if only
            planned.
        tolerance: How large it might be.
        optimizer: The optimizer for the smaller model, if one was given.
        variables: For each variable of the model the one that took its place,
            or None.
    """

    units: dict
    kept: list
    skipped: list
    dropped: list
    folded: list
    parameters: tuple
    opened: list = dataclasses.field(default_factory=list)
    training_lost: list = dataclasses.field(default_factory=list)
    inexact: list = dataclasses.field(default_factory=list)
    difference: float | None = None
    tolerance: float | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    variables: list | None = dataclasses.field(default=None, repr=False)

    def __str__(self):
        lines = [
            f"{name}: {before} -> {after} units"
            for name, (before, after) in self.units.items()
            if before != after
        ]
        lines += [
            f"{name}: {count} dead units stay: {reason}"
            for name, count, reason in self.kept
        ]
        lines += [
            f"{', '.join(names)}: left whole: {reason}"
            for reason, names in _by_reason(self.skipped).items()
        ]
        lines += [f"{name}: branch removed" for name in self.dropped]
        if self.opened:
            lines.append(f"opened: {', '.join(self.opened)}")
        lines += [
            f"{name}: what its own code does in training only is lost"
            for name in self.training_lost
        ]
        if self.folded:
            lines.append(f"constants folded into: {', '.join(self.folded)}")
        lines += [f"not exact any more: {what}" for what in self.inexact]
        before, after = self.parameters
        lines.append(f"parameters: {before:,} -> {after:,}")
        if self.difference is not None:
            lines.append(
                f"largest difference of outputs: {self.difference:.1e}, of "
                f"{self.tolerance:.1e} that rounding explains"
            )
        return "\n".join(lines)


def _by_reason(skipped):
    found: dict = {}
    for name, reason in skipped:
        found.setdefault(reason, []).append(name)
    return found
