"""Low rank of a run: forces between filters, ranks clipped while training."""

from __future__ import annotations

from collections.abc import Sequence

import keras

import tf_ssl
from models import checks


def define_flags(add) -> None:
    """Defines the flags of `LowRank`; `add` as in `train_flags`."""
    add.number(
        "force",
        0.0,
        "Strength of the forces that pull filters together, so that few span "
        "all (tf_ssl.decompose); >= 0.",
        0.0,
    )
    add.number(
        "force_ratio",
        0.0,
        "Instead of --force: the force's norm over that of each kernel's "
        "gradient; >= 0.",
        0.0,
    )
    add.choice(
        "force_norm", "l1", ["l1", "l2"], "Of --force and --force_ratio."
    )
    add.words("force_layers", ["*"], "Patterns of layers with forces: conv*")
    add.number(
        "rank_clipping",
        0.0,
        "After each epoch kernels keep this share of their squared singular "
        "values, in (0, 1). 0: all.",
        0.0,
        1.0,
    )


class LowRank:
    """Lets filters of a model attract each other, and clips their ranks.

    Without arguments nothing changes.

    Args:
      strength: of `tf_ssl.ForceRegularizer`, >= 0.
      ratio: of `tf_ssl.AdaptiveForce`, >= 0.
      norm: "l1" or "l2".
      layers: patterns of layers on which the forces act.
      clipping: energy that `tf_ssl.callbacks.RankClipping` keeps; 0: none.

    Raises:
      ValueError: both a strength and a ratio.
    """

    def __init__(
        self,
        strength: float = 0.0,
        ratio: float = 0.0,
        norm: str = "l1",
        layers: Sequence[str] = ("*",),
        clipping: float = 0.0,
    ):
        if strength and ratio:
            raise ValueError(
                "Pass --force, which is fixed, or --force_ratio, which follows "
                "the gradient."
            )
        checks.check_not_negative(strength=strength, ratio=ratio)
        self.strength = float(strength)
        self.ratio = float(ratio)
        self.norm = norm
        self.layers = tuple(layers)
        self.clipping = clipping

    @property
    def active(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.strength or self.ratio or self.clipping)

    def regularize(self, model: keras.Model) -> None:
        """Puts --force beside what regularizes the kernels already.

        Raises:
          ValueError: a pattern matches no kernel of filters.
        """
        if not self.strength:
            return
        for kernel in self._kernels(model):
            force = tf_ssl.ForceRegularizer(
                self.strength, self.norm, kernel.conv_groups
            )
            own = kernel.variable.regularizer
            both = [force] if own is None else [own, force]
            tf_ssl.regularize(model, {kernel.variable.path: both})

    def wrap(
        self, optimizer: keras.optimizers.Optimizer, model: keras.Model
    ) -> keras.optimizers.Optimizer:
        """Returns an optimizer that adds the forces of --force_ratio.

        Raises:
          ValueError: see `regularize`.
        """
        if not self.ratio:
            return optimizer
        paths = [kernel.variable.path for kernel in self._kernels(model)]
        return tf_ssl.AdaptiveForce(optimizer, self.ratio, paths, self.norm)

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns what clips ranks."""
        if not self.clipping:
            return []
        return [tf_ssl.callbacks.RankClipping(self.clipping)]

    def _kernels(self, model):
        """Kernels of dense layers and convolutions that the patterns name."""
        every = [
            k for k in tf_ssl.find_kernels(model) if k.kind in ("conv", "dense")
        ]
        found = []
        for pattern in self.layers:
            hits = [kernel for kernel in every if kernel.matches(pattern)]
            if not hits:
                raise ValueError(
                    "Invalid value for flag --force_layers. Expected patterns "
                    f"that match {', '.join(k.name for k in every)}. "
                    f"Received: {pattern!r}"
                )
            found += [kernel for kernel in hits if kernel not in found]
        return found

    def __str__(self):
        parts = []
        if self.strength:
            parts.append(f"{self.norm} force {self.strength:g}")
        if self.ratio:
            parts.append(f"{self.norm} force, {self.ratio:g} of the gradient")
        if parts:
            parts.append(f"on {','.join(self.layers)}")
        if self.clipping:
            parts.append(f"ranks clipped to energy {self.clipping:g}")
        return ", ".join(parts)
