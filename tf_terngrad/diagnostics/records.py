"""Records of diagnostics: one dictionary of arrays, one npz file, a step."""

import os
import pathlib
import re
import zipfile

import numpy as np

from tf_terngrad.diagnostics import measure

_FILE = re.compile(r"step-(\d{8,})\.npz")

# The gradients whose histograms a record holds.
KINDS = ("float", "clipped", "ternary", "average")


def make(
    gradients: list[list[np.ndarray]],
    names: list[str],
    ids: list[int],
    compression,
    step: int,
) -> dict[str, np.ndarray]:
    """Measures the gradients of one step.

    V is the number of tensors, N that of workers, B the number of bins.

    - `step`, `num_workers`, `compression` (text), `clip_factor` and
      `bucket_size`: scalars; the last two are those of clipping and bounds
    - `names`, `sizes`: `[V]`
    - `sigma`: `[V]`, standard deviation about the mean, mean over workers
    - `scaler`: `[V]`, shared by the workers; of buckets, the largest
    - `zero_fraction`, `average_zero_fraction`: `[V]`, of what a worker sends
      (mean over workers) and of the average
    - `<kind>_counts` `[V, B]` and `<kind>_limit` `[V]`: histograms over
      [-limit, limit] of the average over workers of float and of clipped
      gradients, of the first worker's ternary gradient, and of the average of
      ternary gradients
    - `ternary_levels` `[V, 3]`, `average_levels` `[V, 2N + 1]`: counts
    - `bounds`: `[len(measure.BOUNDS), V]`
    - `length_ratio`, `angle`: `[V]`, by clipping, mean over workers; degrees
    - `total_length_ratio`, `total_angle`: of all tensors together

    Gradients are clipped at the worker's own level, as in the paper.

    Args:
        gradients: `[workers][tensors]`; no tensor is empty.
        names: One a tensor.
        ids: Its position among the model's variables, one a tensor.
        compression: `tg.TernGrad`.
        step: Number of steps done.
    """
    # NaN and infinities are recorded as they are.
    with np.errstate(all="ignore"):
        return _make(gradients, names, ids, compression, step)


def _make(gradients, names, ids, compression, step):
    num_workers = len(gradients)
    clip_factor = compression.clip_factor or measure.CLIP_FACTOR
    bucket_size = compression.bucket_size or measure.BUCKET_SIZE
    columns = [
        _measure_tensor(list(tensors), i, compression, clip_factor, step)
        for tensors, i in zip(zip(*gradients, strict=True), ids, strict=True)
    ]
    record = {k: np.stack([c[k] for c in columns]) for k in columns[0]}
    products = record.pop("products")  # [V, N, 3]
    for prefix, parts in (("", products), ("total_", products.sum(0)[None])):
        for name in ("length_ratio", "angle"):
            function = getattr(measure, name)
            record[prefix + name] = np.array(
                [np.mean([function(p) for p in workers]) for workers in parts]
            )
    return record | {
        "step": np.int64(step),
        "num_workers": np.int64(num_workers),
        "compression": np.str_(compression),
        "clip_factor": np.float64(clip_factor),
        "bucket_size": np.int64(bucket_size),
        "names": np.array(names),
        "sizes": np.array([g.size for g in gradients[0]], np.int64),
        "bounds": measure.bounds(gradients, clip_factor, bucket_size),
        "total_length_ratio": record["total_length_ratio"][0],
        "total_angle": record["total_angle"][0],
    }


def _measure_tensor(gradients, tensor_id, compression, clip_factor, step):
    num_workers = len(gradients)
    clipped = [measure.clip(g, clip_factor) for g in gradients]
    levels, scalers = measure.ternary_levels(
        gradients, compression, step, tensor_id
    )
    total = levels.sum(axis=0)
    buckets = compression.bucket_size
    values = {
        "float": np.mean([g.astype(np.float64) for g in gradients], axis=0),
        "clipped": np.mean(clipped, axis=0),
        "ternary": measure.ternary_values(levels[0], scalers, 1, buckets),
        "average": measure.ternary_values(total, scalers, num_workers, buckets),
    }
    column = {
        "sigma": np.mean([np.std(g.astype(np.float64)) for g in gradients]),
        "scaler": np.max(scalers, initial=0.0).astype(np.float64),
        "zero_fraction": _zero_fraction(levels),
        "average_zero_fraction": _zero_fraction(total),
        "ternary_levels": measure.level_counts(levels[0], 1),
        "average_levels": measure.level_counts(total, num_workers),
        "products": np.stack(
            [
                measure.inner_products(g, c)
                for g, c in zip(gradients, clipped, strict=True)
            ]
        ),
    }
    for kind in KINDS:
        counts, limit = measure.histogram(values[kind])
        column |= {f"{kind}_counts": counts, f"{kind}_limit": limit}
    return column


def _zero_fraction(levels) -> float:
    return float(np.mean(levels == 0)) if levels.size else 0.0


def write(directory: pathlib.Path, record: dict) -> pathlib.Path:
    """Writes a record, by renaming: a file with its name is complete."""
    path = directory / f"step-{int(record['step']):08d}.npz"
    temporary = path.with_name(f"{path.name}.writing")
    with open(temporary, "wb") as stream:
        np.savez_compressed(stream, **record)
    os.replace(temporary, path)
    return path


def remove_after(directory: pathlib.Path, step: int) -> None:
    """Removes the records of later steps, which are going to be made again."""
    for path in _files(directory):
        if int(_FILE.fullmatch(path.name)[1]) > step:
            path.unlink()


def read(directory: pathlib.Path) -> list[dict[str, np.ndarray]]:
    """Reads the records of a folder, in the order of their steps.

    Raises:
        ValueError: A file is no record, or records do not belong together.
    """
    records = []
    for path in _files(directory):
        try:
            with np.load(path, allow_pickle=False) as archive:
                record = dict(archive)
            same = not records or np.array_equal(
                record["names"], records[0]["names"]
            )
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no record: {error}") from error
        if not same:
            raise ValueError(
                f"{path} is of another model than the records before it. "
                "Remove those that do not belong to the run."
            )
        records.append(record)
    return records


def _files(directory) -> list[pathlib.Path]:
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if _FILE.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(_FILE.fullmatch(p.name)[1]))
