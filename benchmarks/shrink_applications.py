"""Shrinks every architecture of keras.applications, and compares outputs.

    python benchmarks/shrink_applications.py --output=docs/results/shrink

Random weights; biases, scales, shifts and moving statistics alive. In each
structure 30 % or 70 % of the units are zeroed, in one of three ways: everything
of a unit; only the kernels that make it (biases and shifts live on); only what
reads it. Prints how many of the units that are then dead (`Structure.dead`)
went, the largest difference of outputs between the model with its zeros and the
shrunk one, and seconds. Rows that --output already holds are kept; a model that
runs again replaces its own.
"""

import json
import pathlib
import time

import keras
import numpy as np
from absl import app, flags

import tf_ssl

_MODELS = flags.DEFINE_list("models", None, "Names; default: all that build.")
_SHARES = flags.DEFINE_list("shares", ["0.3", "0.7"], "Shares of units.")
_MODES = flags.DEFINE_list("modes", ["all", "kernels", "outgoing"], "Ways.")
_SIZE = flags.DEFINE_integer("size", 96, "Height and width where free.", 32)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


def architectures() -> dict:
    """Name -> function that builds it."""
    found = {}
    for name, value in vars(keras.applications).items():
        if callable(value) and name[0].isupper():
            found[name] = value
    return found


def build(function):
    """A model with random weights, at --size where it can be."""
    shape = (_SIZE.value, _SIZE.value, 3)
    try:
        return function(weights=None, input_shape=shape, classes=100)
    except (ValueError, TypeError):
        return function(weights=None, classes=100)


def liven(model, seed=0):
    """Gives biases, scales, shifts and statistics values of their own."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.rsplit("/", 1)[-1]
        noise = 0.1 * random.standard_normal(variable.shape)
        if name in ("bias", "beta", "moving_mean"):
            variable.assign(noise)
        elif name in ("gamma", "moving_variance"):
            variable.assign(1.0 + noise)


def plant(structures, mode, share, seed=0):
    """Zeroes units."""
    random = np.random.default_rng(seed)
    for structure in structures:
        if structure.kind == "input":
            continue
        units = random.permutation(structure.size)
        units = units[: int(share * structure.size)]
        if mode == "all":
            structure.zero(units)
        for part in structure.slices:
            kernel = part.role == "out" and len(part.variable.shape) > 1
            if (mode == "kernels" and kernel) or (
                mode == "outgoing" and part.role == "in"
            ):
                part.zero(units)


def measure(name, function, mode, share) -> dict:
    """One row."""
    keras.utils.clear_session()
    model = build(function)
    liven(model)
    start = time.perf_counter()
    structures = tf_ssl.find_structures(model)
    found = time.perf_counter()
    plant(structures, mode, share)
    planted = time.perf_counter()
    small = tf_ssl.shrink(model, tolerance=1e-3)
    seconds = time.perf_counter() - planted + found - start
    report = small.shrink_report
    dead = stay = 0
    for structure in structures:
        if structure.kind != "input":
            before, after = report.units[structure.name]
            dead += int(structure.dead().sum())
            stay += before - after
    reasons = {}
    for _, count, reason in report.kept:
        reasons[reason] = reasons.get(reason, 0) + count
    return {
        "model": name,
        "mode": mode,
        "share": share,
        "structures": len(structures),
        "units": sum(s.size for s in structures if s.kind != "input"),
        "dead": dead,
        "removed": stay,
        "parameters": report.parameters,
        "difference": report.difference,
        "seconds": seconds,
        "kept": reasons,
        "skipped": len(structures.skipped),
        "reasons": sorted({reason for _, reason in structures.skipped}),
    }


def main(argv):
    del argv
    rows = []
    known = architectures()
    output = _OUTPUT.value and pathlib.Path(_OUTPUT.value)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        file = output / "applications.json"
        if file.exists():
            rows = json.loads(file.read_text())
    print(
        f"{'model':20}{'mode':10}{'share':>6}{'units':>8}{'dead':>8}"
        f"{'removed':>8}{'M before':>9}{'after':>8}{'difference':>12}{'s':>6}"
    )
    for name in _MODELS.value or known:
        rows = [row for row in rows if row["model"] != name]
        for mode in _MODES.value:
            for share in map(float, _SHARES.value):
                try:
                    row = measure(name, known[name], mode, share)
                except Exception as error:
                    rows.append(
                        {"model": name, "mode": mode, "share": share}
                        | {"error": f"{type(error).__name__}: {error}"}
                    )
                    print(f"{name:20}{mode:10}{share:6.1f}  {error!s:.300}")
                    continue
                rows.append(row)
                before, after = (p / 1e6 for p in row["parameters"])
                print(
                    f"{name:20}{mode:10}{share:6.1f}{row['units']:8}"
                    f"{row['dead']:8}{row['removed']:8}{before:9.2f}"
                    f"{after:8.2f}{row['difference']:12.1e}"
                    f"{row['seconds']:6.1f}",
                    flush=True,
                )
        if output:
            file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
