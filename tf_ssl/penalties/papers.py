"""How the papers train with the group Lasso: sub-gradients and thresholds.

    tf_ssl.GroupLassoOptimizer(optimizer, structures, strength, papers.ISS)

| | `SSL` (NIPS 2016) | `ISS` (ICLR 2018) |
|---|---|---|
| small weights become 0 | each by itself, below 1e-4 | the same |
| gradient of the penalty | added after clipping | clipped with the loss's |
| a weight that makes a unit and reads it | counts once | counts twice |

Reference: Wen et al., "Learning Structured Sparsity in Deep Neural Networks",
NIPS 2016, equation 3 and ZEROUT_THRESHOLD of its code; Wen et al., "Learning
Intrinsic Sparse Structures within Long Short-Term Memory", ICLR 2018.
"""

from __future__ import annotations

import dataclasses

from tf_ssl import checks


@dataclasses.dataclass(frozen=True)
class Subgradient:
    """The update of the papers.

    strength * w / ||w_u||, 0 at a zero unit, is added to the gradients; after
    each step small weights become 0.

    Args:
        threshold: Number >= 0. See `threshold_by`; 0 turns it off.
        threshold_by: "element": weights with |w| below `threshold` become 0, in
            slices with role "out" and "in" (a bias only with its unit).
            "group": units with a norm of at most `threshold` become 0.
        threshold_all: Elements of every trainable variable are thresholded, as
            in the papers' code.
        clip: "outside": the penalty's gradient is added after clipnorm,
            global_clipnorm or clipvalue of the wrapped optimizer (SSL);
            "inside": before (ISS).
        double_count: A weight that two slices give to the same unit counts
            twice (ISS).

    Raises:
        ValueError: An argument is none of these.
    """

    threshold: float = 1e-4
    threshold_by: str = "element"
    threshold_all: bool = False
    clip: str = "outside"
    double_count: bool = False

    def __post_init__(self):
        checks.not_negative("threshold", self.threshold)
        checks.choice("threshold_by", self.threshold_by, ("element", "group"))
        checks.choice("clip", self.clip, ("outside", "inside"))


SSL = Subgradient()
ISS = Subgradient(clip="inside", double_count=True)
