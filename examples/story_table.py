"""What the stages of the story have come to, and their table."""

from __future__ import annotations

import pathlib

import keras
import numpy as np

import tf_ssl
from examples.load_stage import in_fresh_process

BATCH_SIZES = (1, 32)


def facts(path: pathlib.Path, test) -> dict:
    """Accuracy and sizes of a stage's file.

    Args:
      path: `.keras` file, folder of a SavedModel or `.tflite` file.
      test: batches of images and labels.

    Returns:
      accuracy, percent; bytes, of the file; for a Keras model parameters and
      multiply_adds of an image (those of its non-zeros in sparse layers), else
      None.
    """
    run, model = _runner(path)
    right = total = 0
    for images, labels in test:
        found = run(images.numpy()).argmax(axis=-1)
        right += int((found == labels.numpy()).sum())
        total += len(found)
    return {
        "accuracy": round(100 * right / total, 2),
        "bytes": _bytes(path),
        "parameters": model and model.count_params(),
        "multiply_adds": model and tf_ssl.multiply_adds(model).total,
    }


def check_fresh(path: pathlib.Path, images: np.ndarray) -> float:
    """Largest relative difference of a fresh process's logits from ours.

    Args:
      path: of the stage's file.
      images: `[batch, height, width, channels]`.

    Raises:
      RuntimeError: the file does not load there.
    """
    ours = _runner(path)[0](images)
    theirs = in_fresh_process(path, images)
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def times(paths: dict, images: np.ndarray, seconds: float) -> dict:
    """Median milliseconds of a call, all stages in turn in one run.

    Args:
      paths: stage -> file.
      images: `[batch, height, width, channels]`, at least as many as the
        largest of `BATCH_SIZES`.
      seconds: for a batch size.

    Returns:
      Stage -> batch size -> milliseconds.
    """
    found: dict = {stage: {} for stage in paths}
    for size in BATCH_SIZES:
        batch = images[:size]
        functions = {}
        for stage, path in paths.items():
            run, model = _runner(path)
            functions[stage] = (
                (lambda run=run, batch=batch: run(batch))
                if model is None
                else tf_ssl.inference(model, batch)
            )
        for stage, one in tf_ssl.in_turn(functions, seconds).items():
            found[stage][size] = one.median_ms
    return found


def table(stages: dict) -> str:
    """A markdown table, one row a stage.

    Args:
      stages: stage -> its facts.
    """
    header = [
        *("stage", "accuracy %", "parameters", "bytes of the file"),
        "multiply-adds",
        *(f"ms, batch {size}" for size in BATCH_SIZES),
        *("fresh process", "seconds"),
    ]
    rows = [header, ["-" * 3] * len(header)]
    for stage, found in stages.items():
        own = found.get("ms", {})
        rows.append(
            [
                stage,
                f"{found['accuracy']:.2f}",
                *(_count(found[key]) for key in ("parameters", "bytes")),
                _count(found["multiply_adds"]),
                # Keys were strings in JSON.
                *(
                    f"{own[str(size)]:.3f}" if str(size) in own else ""
                    for size in BATCH_SIZES
                ),
                f"{found['fresh']:.0e}" if "fresh" in found else "",
                f"{found['seconds']:.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        + " |"
        for row in rows
    )


def _runner(path):
    """Function from images to logits; the Keras model, or None."""
    if path.suffix != ".keras":
        exported = tf_ssl.runtimes.load(path)
        return lambda images: exported.run([], images)[0], None
    model = keras.saving.load_model(path, compile=False)
    return lambda images: model.predict_on_batch(images), model


def _bytes(path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _count(number) -> str:
    return "" if number is None else f"{number:,}"
