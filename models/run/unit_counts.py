"""How many units of each layer are left, in the logs."""

from __future__ import annotations

from collections.abc import Sequence

import keras

import tf_ssl

PREFIX = "units_"


class UnitCounts(keras.callbacks.Callback):
    """Adds `units_<layer>` to the logs of an epoch: units that are not dead.

    Args:
      structures: of the model that is trained.
    """

    def __init__(self, structures: Sequence[tf_ssl.Structure]):
        super().__init__()
        self.structures = structures

    def on_epoch_end(self, epoch, logs=None):
        for structure in self.structures:
            name = structure.name.split("/")[0]
            live = structure.size - int(structure.dead().sum())
            logs[f"{PREFIX}{name}"] = live
