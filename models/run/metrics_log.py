"""The metrics of every epoch in a file."""

from __future__ import annotations

import json
import math
import os
import pathlib

import keras


class MetricsLog(keras.callbacks.Callback):
    """Appends one line of JSON per epoch: the logs of that epoch.

    When training goes on from an epoch, later lines of the file are dropped,
    so that each epoch has one line. NaN and infinities become the strings
    "nan", "inf" and "-inf": JSON has no numbers for them.

    Args:
      path: of the file.
      first_epoch: number of epochs done before this call of `fit`.
    """

    def __init__(self, path: str | pathlib.Path, first_epoch: int = 0):
        super().__init__()
        self.path = pathlib.Path(path)
        self.first_epoch = first_epoch

    def on_train_begin(self, logs=None):
        kept = [
            json.dumps(entry) + "\n"
            for entry in read(self.path)
            if entry["epoch"] <= self.first_epoch
        ]
        temporary = self.path.with_name(f"{self.path.name}.writing")
        temporary.write_text("".join(kept))
        os.replace(temporary, self.path)

    def on_epoch_end(self, epoch, logs=None):
        entry = {"epoch": epoch + 1}
        entry |= {key: _plain(value) for key, value in (logs or {}).items()}
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def read(path: str | pathlib.Path) -> list[dict]:
    """Returns the lines of such a file; none if it does not exist.

    A last line that was cut, by a crash or a full disk, is left out.
    """
    path = pathlib.Path(path)
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def _plain(value) -> int | float | str:
    if isinstance(value, int):
        return value
    value = float(value)
    return value if math.isfinite(value) else str(value)
