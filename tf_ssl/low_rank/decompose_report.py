"""What `decompose` did, layer by layer."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class LayerRank:
    """A layer and its rank.

    Attributes:
        name: Of the layer; `"block/dense"` in a composite layer.
        rank: Basis filters that stay, or `full_rank` where it stays whole.
        full_rank: Most that it can have.
        energy: Share of the squared singular values that stays, in [0, 1].
        multiply_adds: (before, after), of one output position.
        reason: Why it stays whole; None if it was decomposed.
        milliseconds: (before, after) where it was measured, else None.
    """

    name: str
    rank: int
    full_rank: int
    energy: float
    multiply_adds: tuple[int, int]
    reason: str | None = None
    milliseconds: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class DecomposeReport:
    """What `decompose` did.

    Attributes:
        layers: `LayerRank` of each layer that could be decomposed.
        skipped: (name, reason): convolution and dense layers that cannot, and
            composite layers with such that do not open.
        parameters: (before, after).
        difference: Largest max|a - b| / max|a| of an output between the new
            model and the old one with the products of the factors as kernels:
            what rounding did. What the lower ranks changed is not in it.
        tolerance: How large it may be.
    """

    layers: list[LayerRank]
    skipped: list[tuple[str, str]]
    parameters: tuple[int, int]
    difference: float
    tolerance: float

    def __str__(self):
        lines = []
        for layer in self.layers:
            line = (
                f"{layer.name}: rank {layer.rank} of {layer.full_rank}, energy "
                f"{layer.energy:.3f}"
            )
            if layer.milliseconds:
                line += ", {:.2f} -> {:.2f} ms".format(*layer.milliseconds)
            if layer.reason:
                line += f"; left whole: {layer.reason}"
            lines.append(line)
        lines += [f"{name}: left whole: {why}" for name, why in self.skipped]
        before, after = self.parameters
        lines.append(f"parameters: {before:,} -> {after:,}")
        lines.append(
            f"difference from the model with the products as kernels "
            f"{self.difference:.1e}, tolerance {self.tolerance:.1e}"
        )
        return "\n".join(lines)
