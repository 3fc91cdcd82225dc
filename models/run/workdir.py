"""The folder of a run: checked before any work, described by its flags.

workdir/flags.txt       the run's flags, to be read with --flagfile
workdir/metrics.jsonl   one line per epoch
workdir/logs/           TensorBoard
workdir/checkpoints/    to go on from
workdir/model.keras     the trained model, when the run is finished
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil

import keras


def check_writable(workdir: str | pathlib.Path) -> None:
    """Makes the folder and writes a small file there, which goes again.

    Raises:
      OSError: the folder cannot be written; the message says what to do.
    """
    workdir = pathlib.Path(workdir)
    probe = workdir / f".write_test.{os.uname().nodename}.{os.getpid()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(
            f"Cannot write to workdir {workdir}. {error.strerror}. Choose "
            "another --workdir, or make room and permissions there."
        ) from error
    finally:
        if probe.parent.is_dir():
            probe.unlink(missing_ok=True)


def check_space(
    workdir: str | pathlib.Path, model: keras.Model, checkpoints: int
) -> None:
    """Checks that the checkpoints and the model fit on the disk.

    Args:
      workdir: folder that exists.
      model: compiled model whose optimizer is built.
      checkpoints: how many are kept; one more is there while it is written.

    Raises:
      OSError: there is too little space.
    """
    variables = [*model.variables, *model.optimizer.variables]
    one = sum(_bytes(v) for v in variables)
    needed = (checkpoints + 1) * one + sum(_bytes(v) for v in model.variables)
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise OSError(
            f"Too little space for checkpoints in workdir {workdir}. "
            f"Expected {needed / 1e6:,.1f} MB. "
            f"Received: {free / 1e6:,.1f} MB free"
        )


def save_model(model: keras.Model, path: str | pathlib.Path) -> None:
    """Writes the model without its optimizer, whole or not at all.

    Plain Keras reads it, without this package: regularizers are left out.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f"writing.{path.name}")
    with _without_regularizers(model):
        # The same layers in a model that was never compiled.
        bare = keras.Model(model.input, model.output, name=model.name)
        bare.save(temporary)
    os.replace(temporary, path)


@contextlib.contextmanager
def _without_regularizers(model: keras.Model):
    """They are of the training, not of the model."""
    found = [
        (layer, name, value)
        for layer in model._flatten_layers(include_self=False)
        for name, value in vars(layer).items()
        if name.endswith("_regularizer") and value is not None
    ]
    try:
        for layer, name, _ in found:
            setattr(layer, name, None)
        yield
    finally:
        for layer, name, value in found:
            setattr(layer, name, value)


def _bytes(variable: keras.Variable) -> int:
    return variable.numpy().nbytes
