"""Test accuracy of LeNet on MNIST, ternary against float gradients.

    python benchmarks/lenet_mnist.py --output=docs/results/lenet_mnist

Trains both recipes with each seed on two workers of this machine, one run
after the other, through the same command as `make train`. Writes each run's
output and table.md. Started again, it goes on with the runs
that are missing.
"""

import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

_RECIPES = {"ternary": "lenet_mnist_terngrad", "float": "lenet_mnist_float"}

# The line that train.py prints after the last epoch.
_LAST_EPOCH = re.compile(
    r"epoch (\d+)/\1 .* val_accuracy (?P<accuracy>[\d.]+)"
    r" +(?P<speed>[\d,]+) images/s +(?P<bits>[\d.]+) bits/element"
    r"( +(?P<zeros>[\d.]+)% zeros)?"
)

_OUTPUT = flags.DEFINE_string("output", None, "Folder for logs.", required=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Workers, >= 1.", lower_bound=1)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")


def _train(recipe, seed, output):
    """One run, unless its log is there already; what its last epoch says."""
    log = output / f"{recipe}_seed{seed}.log"
    if not log.exists() or _summary(log) is None:
        with tempfile.TemporaryDirectory() as workdir, open(log, "w") as file:
            command = [
                str(pathlib.Path(sys.executable).with_name("horovodrun")),
                "--gloo",
                *("-np", str(_WORKERS.value)),
                *("-H", f"localhost:{_WORKERS.value}"),
                sys.executable,
                "train.py",
                f"--flagfile=models/recipes/{recipe}.flags",
                f"--workdir={workdir}",
                f"--seed={seed}",
                *_FLAGS.value,
            ]
            subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, check=True
            )
    return _summary(log)


def _summary(log):
    """The fields of the last epoch's line; None if the run is unfinished."""
    found = [
        match.groupdict() for match in _LAST_EPOCH.finditer(log.read_text())
    ]
    return found[-1] if found else None


def main(argv):
    """Runs all and writes the table."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in _SEEDS.value:
        for gradients, recipe in _RECIPES.items():
            last = _train(recipe, seed, output)
            rows.append((gradients, seed, last))
            print(f"{gradients} seed {seed}: {last['accuracy']}", flush=True)
    lines = [
        "| gradients | seed | test accuracy % | images/s | bits an element "
        "| zeros % |",
        "|---|---|---|---|---|---|",
    ]
    for gradients, seed, last in rows:
        lines.append(
            f"| {gradients} | {seed} | {100 * float(last['accuracy']):.2f} "
            f"| {last['speed']} | {last['bits']} | {last['zeros'] or ''} |"
        )
    mean = {
        name: statistics.mean(
            100 * float(last["accuracy"])
            for gradients, _, last in rows
            if gradients == name
        )
        for name in _RECIPES
    }
    lines.append("")
    lines.append(
        f"Mean: float {mean['float']:.2f} %, ternary {mean['ternary']:.2f} %; "
        f"difference {mean['ternary'] - mean['float']:+.2f} points."
    )
    (output / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)
