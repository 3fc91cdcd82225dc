"""What `sparsify` did, layer by layer."""

from __future__ import annotations

import dataclasses

from custom_ops import Plan


@dataclasses.dataclass(frozen=True)
class SparsifiedLayer:
    """A layer with a kernel.

    Attributes:
        name: Of the layer, `"encoder/conv1"` in a nested model or a composite
            layer.
        is_sparse: Whether it runs on a sparse kernel now.
        reason: Why, or why not.
        milliseconds: (dense, sparse) of the layer alone, the call of a compiled
            function included where it was measured; None for layers that
            cannot be sparse.
        plan: See `custom_ops.plan`; None for those.
    """

    name: str
    is_sparse: bool
    reason: str
    milliseconds: tuple[float, float] | None = None
    plan: Plan | None = None

    def __str__(self):
        line = f"{self.name}: {'sparse' if self.is_sparse else 'dense'}: "
        if self.plan is not None:
            line += f"{1 - self.plan.density:.1%} zeros, {self.plan.pattern}; "
        line += self.reason
        if self.milliseconds is not None:
            dense, sparse = self.milliseconds
            line += f", {dense:.3f} -> {sparse:.3f} ms ({dense / sparse:.2f}x)"
        return line


@dataclasses.dataclass(frozen=True)
class SparsifyReport:
    """What `sparsify` did.

    Attributes:
        layers: `SparsifiedLayer` of each layer with a kernel.
        batch_size: Examples a call for which it was decided.
        milliseconds: (before, after) of the whole model, or None where that
            was not measured.
        difference: Largest max|a - b| / max|a| of an output between the new
            model and the old one with kernels of the same values.
        tolerance: How large it may be.
    """

    layers: list[SparsifiedLayer]
    batch_size: int
    milliseconds: tuple[float, float] | None
    difference: float
    tolerance: float

    def __str__(self):
        lines = [str(layer) for layer in self.layers]
        if self.milliseconds is not None:
            before, after = self.milliseconds
            lines.append(
                f"whole model, batch {self.batch_size}: {before:.3f} -> "
                f"{after:.3f} ms ({before / after:.2f}x)"
            )
        lines.append(
            f"difference from the model {self.difference:.1e}, tolerance "
            f"{self.tolerance:.1e}"
        )
        return "\n".join(lines)
