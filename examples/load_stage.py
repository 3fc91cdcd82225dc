"""Loads one file of the story and runs it: for a process of its own.

    python -m examples.load_stage FILE IMAGES.npy LOGITS.npy

FILE is a `.keras` file, a folder of a SavedModel or a `.tflite` file.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def in_fresh_process(path, images: np.ndarray) -> np.ndarray:
    """Logits that a new Python process computes with a file.

    Args:
      path: of the model.
      images: `[batch, height, width, channels]`.

    Raises:
      RuntimeError: the process fails; the message is the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = (pathlib.Path(folder) / f"{x}.npy" for x in "ab")
        np.save(given, images)
        command = [sys.executable, "-m", "examples.load_stage"]
        done = subprocess.run(
            [*command, pathlib.Path(path).resolve(), given, made],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(
                f"{path} does not load in a fresh process: {done.stdout[-500:]}"
            )
        return np.load(made)


def logits(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """What the model in a file computes.

    Args:
      path: of the model.
      images: `[batch, height, width, channels]`.
    """
    if path.suffix != ".keras":
        import tf_ssl

        return tf_ssl.runtimes.load(path).run([], images)[0]
    import keras

    # Registers the layers with sparse kernels; other stages are plain Keras.
    if path.stem.endswith("sparsify"):
        import tf_ssl  # noqa: F401
    model = keras.saving.load_model(path, compile=False)
    return keras.ops.convert_to_numpy(model(images, training=False))


if __name__ == "__main__":
    file, given, made = map(pathlib.Path, sys.argv[1:])
    np.save(made, logits(file, np.load(given)))
