"""Weights of another run to begin from."""

from __future__ import annotations

import pathlib

import keras

from models.rebatch import lasting_variables


def load_weights(
    model: keras.Model, source: str | pathlib.Path
) -> pathlib.Path:
    """Gives a model the weights and moving statistics of a saved one.

    Args:
      model: a built model.
      source: a `.keras` file, or the workdir of a finished run, which holds
        model.keras. The variables must have the same paths and shapes.

    Returns:
      The file that was read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: its variables are others; the message names them.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        path = path / "model.keras"
    if not path.is_file():
        raise FileNotFoundError(
            f"No weights to begin from: no such file: {path}. Expected a "
            ".keras file, or the workdir of a finished run of train.py"
        )
    theirs = _weights(keras.saving.load_model(path, compile=False))
    ours = _weights(model)
    differing = [
        f"{name}: {_shape(theirs, name)} there, {_shape(ours, name)} here"
        for name in dict.fromkeys([*ours, *theirs])
        if _shape(theirs, name) != _shape(ours, name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"The weights of {path} do not fit model {model.name!r}. "
            f"Differing: {'; '.join(differing[:3])}{more}"
        )
    for name, variable in ours.items():
        variable.assign(theirs[name])
    return path


def _weights(model: keras.Model) -> dict[str, keras.Variable]:
    """By path; random streams and states are a run's own."""
    return {v.path: v for v in lasting_variables(model)}


def _shape(variables, name) -> str:
    if name not in variables:
        return "none"
    return " x ".join(map(str, variables[name].shape)) or "scalar"
