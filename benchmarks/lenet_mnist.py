"""Test accuracy of LeNet on MNIST, ternary against float gradients.

    python benchmarks/lenet_mnist.py --output=docs/results/lenet_mnist

Trains both recipes with each seed on two workers of this machine, one run
after the other, through the same command as `make train`. Writes each run's
output and metrics.jsonl, and table.md. Started again, it goes on with the runs
that are missing.
"""

import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from absl import app, flags

_RECIPES = {"ternary": "lenet_mnist_terngrad", "float": "lenet_mnist_float"}

_OUTPUT = flags.DEFINE_string("output", None, "Folder for logs.", required=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Workers, >= 1.", lower_bound=1)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")


def _train(recipe, seed, output):
    """One run, unless its metrics.jsonl is there already; its summary."""
    name = f"{recipe}_seed{seed}"
    done = output / f"{name}.jsonl"
    if done.exists():
        return _summary(done)
    with tempfile.TemporaryDirectory() as workdir:
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
        with open(output / f"{name}.log", "w") as log:
            subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, check=True
            )
        shutil.copy(pathlib.Path(workdir) / "metrics.jsonl", done)
    return _summary(done)


def _summary(metrics):
    """(last epoch's metrics, seconds of all epochs with their tests)."""
    epochs = [json.loads(line) for line in metrics.open()]
    return epochs[-1], sum(epoch["seconds"] for epoch in epochs)


def main(argv):
    """Runs all and writes the table."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in _SEEDS.value:
        for gradients, recipe in _RECIPES.items():
            last, seconds = _train(recipe, seed, output)
            rows.append((gradients, seed, last, seconds))
            print(
                f"{gradients} seed {seed}: {100 * last['val_accuracy']:.2f} %",
                flush=True,
            )
    lines = [
        "| gradients | seed | test accuracy % | training s | bits an element "
        "| zeros |",
        "|---|---|---|---|---|---|",
    ]
    for gradients, seed, last, seconds in rows:
        zeros = last.get("zero_fraction")
        lines.append(
            f"| {gradients} | {seed} | {100 * last['val_accuracy']:.2f} "
            f"| {seconds:.0f} | {last['bits_per_element']:.2f} "
            f"| {'' if zeros is None else f'{zeros:.3f}'} |"
        )
    mean = {
        name: statistics.mean(
            100 * last["val_accuracy"]
            for gradients, _, last, _ in rows
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
