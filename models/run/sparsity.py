"""Structured sparsity of a run: what its flags ask of tf_ssl."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import keras
import numpy as np

import tf_ssl
from models.rebatch import recurrent_layers
from models.run import group_lasso_flag
from models.run.unit_counts import UnitCounts

UPDATES = ("subgradient", "proximal")
FREEZE = ("none", "element", "group", "block")


class Sparsity:
    """Regularizes a model, wraps its optimizer and watches its zeros.

    Without arguments nothing changes: `active` is False, `regularize` and
    `wrap` leave what they get as it is and there are no callbacks.

    Args:
      group_lasso: parts of the flag --group_lasso, see `group_lasso_flag`.
      structure_lasso: strength of the group Lasso on all structures, >= 0.
      structure_update: one of `UPDATES`, for structures and blocks.
      depth_lasso: strength of the group Lasso on residual branches, >= 0.
      threshold: weights that are penalized and below this become 0 after each
        update, >= 0.
      freeze_zeros: one of `FREEZE`: which zeros stay: single weights, filters
        and columns of kernels, or residual branches.
      iss_strength: strength of the group Lasso on hidden units of recurrent
        layers (ISS), >= 0. As in the paper its gradient is clipped with that of
        the loss, and a weight that belongs to a unit twice counts twice.
      iss_exclude: patterns of recurrent layers that are left alone.
      loss_scale: what the loss is multiplied with, compared to the one that
        `iss_strength` belongs to; the strength is multiplied with it, too.

    Raises:
      ValueError: a part of `group_lasso` cannot be read, or it stands beside
        "proximal" updates of structures, which have no threshold; or
        `iss_strength` stands beside penalties of other structures, or
        "proximal" updates: its groups overlap.
    """

    def __init__(
        self,
        group_lasso: Sequence[str] = (),
        structure_lasso: float = 0.0,
        structure_update: str = "subgradient",
        depth_lasso: float = 0.0,
        threshold: float = 1e-4,
        freeze_zeros: str = "none",
        iss_strength: float = 0.0,
        iss_exclude: Sequence[str] = (),
        loss_scale: float = 1.0,
    ):
        self._items = tuple(group_lasso)
        self.penalties = group_lasso_flag.parse(group_lasso)
        if self.penalties and structure_update == "proximal":
            raise ValueError(
                "Flag --group_lasso has no zeros without a threshold, and "
                "--structure_update=proximal has none. Pass one of the two."
            )
        if iss_strength and (structure_lasso or depth_lasso):
            raise ValueError(
                "Flag --iss_strength penalizes hidden units, as "
                "--structure_lasso does. Pass it without --structure_lasso and "
                "--depth_lasso."
            )
        if iss_strength and structure_update == "proximal":
            raise ValueError(
                "Flag --iss_strength has groups that share weights, for which "
                "there are no proximal steps. Pass it with "
                "--structure_update=subgradient."
            )
        if iss_exclude and not iss_strength:
            raise ValueError(
                "Flag --iss_exclude says what --iss_strength leaves alone. "
                "Pass both."
            )
        self.structure_lasso = structure_lasso
        self.structure_update = structure_update
        self.depth_lasso = depth_lasso
        self.threshold = threshold
        self.freeze_zeros = freeze_zeros
        self.iss_strength = iss_strength
        self.iss_exclude = tuple(iss_exclude)
        self.loss_scale = loss_scale
        self._kernels = []
        self._structures = None
        self._frozen = None

    @property
    def active(self) -> bool:
        """Whether anything was asked for."""
        return bool(
            self.penalties
            or self.structure_lasso
            or self.depth_lasso
            or self.iss_strength
            or self.freeze_zeros != "none"
        )

    def regularize(self, model: keras.Model) -> None:
        """Puts the penalties of --group_lasso on the kernels of a model.

        Raises:
          ValueError: a pattern matches nothing, or a kernel has no such groups.
        """
        if not self.penalties:
            return
        regularized = tf_ssl.regularize(model, self.penalties)
        paths = {path for path, _ in regularized}
        self._kernels = [
            v for v in model.trainable_variables if v.path in paths
        ]

    def wrap(
        self, optimizer: keras.optimizers.Optimizer, model: keras.Model
    ) -> keras.optimizers.Optimizer:
        """Returns an optimizer that penalizes structures and thresholds.

        Args:
          optimizer: of Keras.
          model: after `regularize`.

        Raises:
          ValueError: the model has no structures, or no residual branches;
            with structure_update="proximal" also if groups overlap.
          TypeError: "proximal" with an optimizer that it does not know.
        """
        if self.freeze_zeros == "block":
            self._frozen = _found(tf_ssl.find_blocks, model, "branches")
        structures, strengths = [], {}
        for strength, find, pattern, what in (
            (self.depth_lasso, tf_ssl.find_blocks, "*/block", "branches"),
            (self.structure_lasso, _units, "*", "structures"),
            (
                self.iss_strength * self.loss_scale,
                self._hidden_units,
                "*",
                "recurrent units",
            ),
        ):
            if strength:
                structures += _found(find, model, what)
                strengths[pattern] = strength
        self._structures = structures or None
        # Strength 0: their penalty is in the loss, zeros are made here.
        kernels = [_whole(v) for v in self._kernels if self.threshold]
        if kernels:
            strengths = {"*/weights": 0.0, **strengths}
        if not strengths:
            return optimizer
        return tf_ssl.GroupLassoOptimizer(
            optimizer,
            [*structures, *kernels],
            strengths,
            update=self.structure_update,
            threshold=self.threshold,
            clip="inside" if self.iss_strength else "outside",
            double_count=bool(self.iss_strength),
        )

    def _hidden_units(self, model):
        """Units whose weights are, among others, those of recurrent layers."""
        own = {id(v) for r in recurrent_layers(model) for v in r.variables}
        return [
            s
            for s in tf_ssl.find_structures(model, self.iss_exclude)
            if any(id(part.variable) in own for part in s.of(("out",)))
        ]

    def callbacks(
        self, log_dir: str | pathlib.Path | None = None
    ) -> list[keras.callbacks.Callback]:
        """Returns what holds the zeros and what counts them.

        Args:
          log_dir: for TensorBoard, `log_dir`/sparsity; None writes nothing.
        """
        if not self.active:
            return []
        callbacks = []
        if self.freeze_zeros != "none":
            by = "element" if self.freeze_zeros == "element" else "group"
            callbacks.append(tf_ssl.callbacks.FreezeZeros(self._frozen, by))
        if self._structures:
            callbacks.append(tf_ssl.callbacks.GroupLassoMetric())
        if self.iss_strength:
            callbacks.append(UnitCounts(self._structures))
        callbacks.append(
            tf_ssl.callbacks.SparsityLogger(
                log_dir and pathlib.Path(log_dir) / "sparsity",
                self._structures,
            )
        )
        return callbacks

    def __str__(self):
        parts = list(self._items)
        if self.structure_lasso:
            parts.append(f"structures:{self.structure_lasso:g}")
        if self.depth_lasso:
            parts.append(f"branches:{self.depth_lasso:g}")
        if self.iss_strength:
            parts.append(f"ISS:{self.iss_strength:g}")
            if self.loss_scale != 1:
                strength = self.iss_strength * self.loss_scale
                parts[-1] += f" ({strength:.3g} of the mean over steps)"
            if self.iss_exclude:
                parts[-1] += f" without {', '.join(self.iss_exclude)}"
        if self.structure_lasso or self.depth_lasso:
            parts.append(f"by {self.structure_update} steps")
        if parts and self.structure_update != "proximal":
            parts.append(f"threshold {self.threshold:g}")
        if self.freeze_zeros != "none":
            parts.append(f"zeros frozen by {self.freeze_zeros}")
        return ", ".join(parts)


def _found(find, model, what) -> list[tf_ssl.Structure]:
    """Structures of a model, of which there must be some."""
    found = find(model)
    if not found:
        raise ValueError(f"Model {model.name!r} has no {what} that could go")
    return list(found)


def _units(model: keras.Model) -> list[tf_ssl.Structure]:
    """Units that layers make; features of the input have no weights."""
    return [s for s in tf_ssl.find_structures(model) if s.kind != "input"]


def _whole(kernel: keras.Variable) -> tf_ssl.Structure:
    """All weights of a kernel as one unit."""
    units = np.zeros((1,) * len(kernel.shape), np.int32)
    return tf_ssl.Structure(
        f"{kernel.path}/weights", 1, (tf_ssl.Slice(kernel, "out", units),)
    )
