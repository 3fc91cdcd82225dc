"""Kernels lose their smallest singular values while they are trained."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.graph.walk import build_graph
from tf_ssl.low_rank.decompose import layers_to_decompose, names_of
from tf_ssl.low_rank.factors import factors
from tf_ssl.structures.rules import has_rule


class RankClipping(keras.callbacks.Callback):
    """Sets singular values of kernels to zero at the end of epochs.

    Each kernel, as a matrix of filters, becomes the nearest one of the rank
    that keeps `energy` of its squared singular values. Ranks only fall: what
    was clipped once does not come back. At the end `tf_ssl.decompose` with the
    same energy, or `ranks=callback.ranks`, loses next to nothing.

    Args:
        energy: Share that stays, in (0, 1].
        every: Epochs between two clippings, >= 1.
        exclude: Names of layers, or patterns as in fnmatch, left alone.

    Attributes:
        ranks: Layer's name -> rank, after the last clipping.

    Raises:
        ValueError: An argument is none of these; when training begins, if a
            pattern matches no layer.

    Example:
        model.fit(train, callbacks=[tf_ssl.callbacks.RankClipping(0.95)])

    Reference: Wen et al., "Coordinating Filters for Faster Deep Neural
    Networks", ICCV 2017; the authors' code clips ranks in the same way.
    """

    def __init__(self, energy: float = 0.95, every: int = 1, exclude=()):
        super().__init__()
        self.energy = checks.share("energy", energy)
        self.every = checks.integer("every", every, 1)
        self.exclude = exclude
        self.ranks: dict[str, int] = {}

    def on_train_begin(self, logs=None):
        """Finds the layers."""
        graph = build_graph(self.model, has_rule)
        layers, _ = layers_to_decompose(self.model, self.exclude, graph)
        names = names_of(graph)
        self._layers = {names[id(layer)]: layer for layer in layers}

    def on_epoch_end(self, epoch, logs=None):
        """Clips; adds the mean of rank over full rank to the logs."""
        if (epoch + 1) % self.every == 0:
            shares = []
            for name, layer in self._layers.items():
                found = factors(layer, "svd")
                rank = min(
                    found.rank_of(self.energy),
                    self.ranks.get(name, found.full_rank),
                )
                self.ranks[name] = rank
                shares.append(rank / found.full_rank)
                layer.kernel.assign(found.product(rank))
            self._mean = float(np.mean(shares)) if shares else 1.0
        if logs is not None and self.ranks:
            logs["rank_share"] = self._mean
