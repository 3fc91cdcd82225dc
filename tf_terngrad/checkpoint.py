"""Checkpoints of all workers that are complete, or are not there.

    directory/epoch-00003/
        manifest.json            epoch, number of workers
        shared.npz               trainable and optimizer variables, of rank 0
        rank-00000-of-00002.npz  what each worker has of its own: moving
        rank-00001-of-00002.npz  statistics, seed generators, `extra`, sums of
                                 micro-steps, what clipping removed

A checkpoint is written to `epoch-00003.writing` and renamed when the files of
all workers exist. The directory must be one that all hosts share.
"""

import json
import pathlib
import re
import shutil

import keras
from absl import logging

from tf_terngrad import archive, checks, collectives, replica

_COMPLETE = re.compile(r"epoch-(\d{5,})")
_UNFINISHED = re.compile(r"epoch-\d{5,}\.(writing|deleting)")


class Checkpoint(keras.callbacks.Callback):
    """Writes a checkpoint at the end of every epoch.

    Put it after the callbacks that change variables (AverageStatistics). To go
    on from the last checkpoint, call `restore` on every worker before `fit`.

    Args:
        directory: Folder of the checkpoints, one for all workers.
        keep: Int >= 1: how many of the last ones stay. Defaults to 2.
        extra: Name -> variable: what each worker has of its own besides
            moving statistics and seed generators. Defaults to None.
    """

    def __init__(self, directory, keep: int = 2, extra: dict | None = None):
        super().__init__()
        checks.integer("keep", keep, 1)
        self.directory = directory
        self.keep = keep
        self.extra = extra

    def on_epoch_end(self, epoch, logs=None):
        """Writes."""
        save(self.directory, self.model, epoch + 1, self.keep, self.extra)


def save(
    directory,
    model,
    epoch: int,
    keep: int = 2,
    extra: dict | None = None,
) -> None:
    """Writes a checkpoint; all workers call it.

    Args:
        directory: Folder of the checkpoints, shared by all workers.
        model: Built model; its optimizer's variables are saved if it has one.
        epoch: Epochs done so far: the one to go on with.
        keep: How many of the last checkpoints stay.
        extra: See `Checkpoint`.

    Raises:
        RuntimeError: On every worker, if one of them cannot write.
    """
    directory = pathlib.Path(directory)
    target = directory / f"epoch-{epoch:05d}"
    writing = directory / f"{target.name}.writing"
    rank, size = collectives.rank(), collectives.size()

    def prepare():
        if rank == 0:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)

    def write():
        if rank == 0:
            archive.write(writing / "shared.npz", _shared(model))
            manifest = {"epoch": epoch, "ranks": size}
            (writing / "manifest.json").write_text(json.dumps(manifest))
        archive.write(writing / _rank_file(rank, size), _own(model, extra))

    def publish():
        if rank != 0:
            return
        for other in range(size):
            if not (writing / _rank_file(other, size)).is_file():
                raise FileNotFoundError(
                    f"Worker {other}'s file is not in {writing} on the host "
                    "of worker 0. All hosts must share the folder."
                )
        if target.exists():
            _delete(target)
        writing.rename(target)
        for old in _complete(directory)[:-keep]:
            _delete(old)

    for part in (prepare, write, publish):
        _together(part, f"write checkpoint {target}")


def restore(directory, model, extra: dict | None = None) -> int:
    """Takes all variables from the last complete checkpoint; all workers call.

    Half-written checkpoints are removed. With another number of workers than
    wrote it, every worker takes the moving statistics of rank 0 and keeps the
    seed generators and `extra` that it has.

    Args:
        directory: Folder of the checkpoints; it need not exist.
        model: Built model. If it has an optimizer, that is built and restored
            too.
        extra: See `Checkpoint`.

    Returns:
        Number of epochs done: the `initial_epoch` for `fit`. 0 if there is no
        checkpoint.

    Raises:
        RuntimeError: On every worker, if one cannot read it or it does not fit
            the model.
    """
    directory = pathlib.Path(directory)

    def choose():
        if collectives.rank() == 0:
            _remove_unfinished(directory)
            found = latest(directory)
            return found and found.name
        return None

    name = _together(choose, f"look for checkpoints in {directory}")
    name = collectives.broadcast_object(name, name="checkpoint")
    if name is None:
        return 0
    folder = directory / name
    return _together(
        lambda: load(folder, model, extra), f"read checkpoint {folder}"
    )


def latest(directory) -> pathlib.Path | None:
    """The folder of the last complete checkpoint, None if there is none."""
    complete = _complete(pathlib.Path(directory))
    return complete[-1] if complete else None


def load(folder, model, extra: dict | None = None) -> int:
    """Takes this worker's variables from one checkpoint.

    Args:
        folder: As `latest` returns it.
        model: Built model, with or without an optimizer.
        extra: See `Checkpoint`.

    Returns:
        Number of epochs done.

    Raises:
        ValueError: The checkpoint does not fit the model.
        FileNotFoundError: A file of it is gone.
    """
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    rank, size, writers = (
        collectives.rank(),
        collectives.size(),
        manifest["ranks"],
    )
    shared = _shared(model)
    own = _own(model, extra)
    if writers != size:
        # Nobody's random stream may become that of several workers.
        own = {"statistics": own["statistics"]}
        if rank == 0 and getattr(model, "optimizer", None) is not None:
            logging.warning(
                "Checkpoint %s was written by %d worker(s), now there are %d: "
                "all take the moving statistics of worker 0 and start new "
                "random streams.",
                folder,
                writers,
                size,
            )
    rank_file = folder / _rank_file(rank if writers == size else 0, writers)
    if not rank_file.is_file():
        raise FileNotFoundError(
            f"Checkpoint {folder} of {writers} worker(s) lacks "
            f"{rank_file.name}. Put it back, or remove the whole folder to go "
            "on from the checkpoint before."
        )
    archive.read(folder / "shared.npz", shared)
    archive.read(rank_file, own)
    return manifest["epoch"]


def _shared(model) -> dict:
    """What is the same on all workers."""
    groups = {"trainable": model.trainable_variables}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        groups["optimizer"] = replica.optimizer_variables(optimizer)
    return groups


def _own(model, extra) -> dict:
    """What each worker has of its own."""
    groups = {"statistics": [], "streams": []}
    for variable in model.non_trainable_variables:
        is_statistic = keras.backend.is_float_dtype(variable.dtype)
        groups["statistics" if is_statistic else "streams"].append(variable)
    optimizer = getattr(model, "optimizer", None)
    groups["optimizer"] = replica.worker_variables(optimizer)
    for name, variable in (extra or {}).items():
        groups[f"extra {name}"] = [variable]
    return groups


def _rank_file(rank: int, size: int) -> str:
    return f"rank-{rank:05d}-of-{size:05d}.npz"


def _together(part, what: str):
    """Runs `part` on every worker; if it fails on one, raises on all."""
    result, error = None, None
    try:
        result = part()
    except Exception as e:  # whatever it is, the others must hear of it
        error = e
    messages = collectives.allgather_object(
        error and f"{type(error).__name__}: {error}", name="checkpoint_errors"
    )
    for rank, message in enumerate(messages):
        if message:
            raise RuntimeError(
                f"Worker {rank} cannot {what}. {message}"
            ) from error
    return result


def _complete(directory: pathlib.Path) -> list[pathlib.Path]:
    """Complete checkpoints, the oldest first."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if _COMPLETE.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(_COMPLETE.fullmatch(p.name)[1]))


def _delete(folder: pathlib.Path) -> None:
    # Renamed first: half deleted, it must not look complete.
    deleting = folder.with_name(f"{folder.name}.deleting")
    shutil.rmtree(deleting, ignore_errors=True)
    folder.rename(deleting)
    shutil.rmtree(deleting, ignore_errors=True)


def _remove_unfinished(directory: pathlib.Path) -> None:
    if directory.is_dir():
        for folder in directory.iterdir():
            if _UNFINISHED.fullmatch(folder.name):
                logging.info("Removing unfinished checkpoint %s", folder)
                shutil.rmtree(folder, ignore_errors=True)
