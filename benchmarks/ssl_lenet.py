"""LeNet and an MLP on MNIST with structures learned away, beside the paper's.

    python benchmarks/ssl_lenet.py --seeds=0,1,2

Each row of the paper's tables is three runs of train.py with the recipes of
models/recipes: a baseline, which rows of the same network share, structured
sparsity from its weights, and fine-tuning with the zeros held. A run whose
workdir holds model.keras is skipped, one that was killed goes on from its last
checkpoint.

Counted in the fine-tuned model, as the paper counts: filters with a weight
other than 0; weights per filter, the positions (height, width, channel) at
which some filter has one; neurons that have a weight in and one out. FLOP of
a layer, as in the paper: rows times columns of its lowered matrix that are not
zero, in percent of all. Errors are those of the last epoch on the test images,
which choose nothing. The model is then shrunk, which takes out filters and
neurons, and tested again.

Writes <recipe>_seed<n>.log, table.md and results.json after each row.

Reference: Wen et al., Learning structured sparsity in deep neural networks,
NIPS 2016, tables 1 and 2, and the MLP of section 4.1.
"""

import dataclasses
import json
import os
import pathlib
import signal
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import recipe_runs
from absl import app, flags
from recipe_runs import say

import models
import tf_ssl
from models.run import metrics_log

_ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the paper.

    Attributes:
      title: in the paper.
      baseline: recipe of the dense network.
      recipe: of the structured sparsity; fine-tuning is `<recipe>_finetune`.
      counts: what is counted, see `COUNTERS`.
      sizes: at most this many, of each layer.
      error: at most this, percent.
      flop: the paper's, percent of each layer.
    """

    title: str
    baseline: str
    recipe: str
    counts: str
    sizes: tuple[int, ...]
    error: float
    flop: tuple[float, ...]


_FILTERS, _SHAPES, _NEURONS = "filters", "weights per filter", "neurons"
_LENET, _MLP = "ssl_lenet_baseline", "ssl_mlp_baseline"
_ALL_ROWS = (
    Row("LeNet 2", _LENET, "ssl_lenet2", _FILTERS, (5, 19), 0.8, (25, 7.6)),
    Row("LeNet 3", _LENET, "ssl_lenet3", _FILTERS, (3, 12), 1.0, (15, 3.6)),
    Row("LeNet 4", _LENET, "ssl_lenet4", _SHAPES, (21, 41), 0.8, (8.4, 8.2)),
    Row("LeNet 5", _LENET, "ssl_lenet5", _SHAPES, (7, 14), 1.0, (1.4, 2.8)),
    Row(
        *("MLP 2", _MLP, "ssl_mlp2", _NEURONS),
        (469, 294, 166, 10),
        1.34,
        (35.18, 32.54, 55.33),
    ),
    Row(
        *("MLP 3", _MLP, "ssl_mlp3", _NEURONS),
        (434, 174, 78, 10),
        1.53,
        (19.26, 9.05, 26.0),
    ),
)
ROWS = {row.recipe: row for row in _ALL_ROWS}

_ROWS = flags.DEFINE_list("rows", list(ROWS), "Recipes of the rows.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_OUTPUT = flags.DEFINE_string(
    "output", str(_ROOT / "docs/results/ssl_lenet"), "For the results."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", str(_ROOT / "runs/ssl_lenet"), "For the runs."
)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")
_REPORT_ONLY = flags.DEFINE_boolean(
    "report_only", False, "Write the results of the runs that are there."
)


def filters(model: keras.Model) -> tuple[int, ...]:
    """Filters of each convolution that are not zero."""
    return tuple(
        int(kernel.any(axis=(0, 1, 2)).sum()) for kernel in _kernels(model, 4)
    )


def weights_per_filter(model: keras.Model) -> tuple[int, ...]:
    """Positions (height, width, channel) at which a filter is not zero."""
    return tuple(int(kernel.any(axis=3).sum()) for kernel in _kernels(model, 4))


def neurons(model: keras.Model) -> tuple[int, ...]:
    """Inputs, neurons and outputs of an MLP with weights in and out."""
    kernels = _kernels(model, 2)
    reads = [kernel.any(axis=1) for kernel in kernels]
    makes = [kernel.any(axis=0) for kernel in kernels]
    hidden = [
        int((made & read).sum())
        for made, read in zip(makes[:-1], reads[1:], strict=True)
    ]
    return (int(reads[0].sum()), *hidden, kernels[-1].shape[1])


def flop(model: keras.Model, rank: int) -> tuple[float, ...]:
    """Rows times columns that are not zero of kernels, percent of all."""
    percent = []
    for kernel in _kernels(model, rank):
        matrix = kernel.reshape(-1, kernel.shape[-1])  # [columns, filters]
        live = int(matrix.any(axis=0).sum()) * int(matrix.any(axis=1).sum())
        percent.append(100 * live / matrix.size)
    return tuple(percent)


COUNTERS = {_FILTERS: filters, _SHAPES: weights_per_filter, _NEURONS: neurons}


def _kernels(model, rank) -> list[np.ndarray]:
    """Kernels of this rank, in order; the weights that are not zero."""
    return [
        keras.ops.convert_to_numpy(v) != 0
        for v in model.trainable_variables
        if v.name == "kernel" and len(v.shape) == rank
    ]


def workdir_of(recipe: str, seed: int) -> pathlib.Path:
    """Where a run is."""
    return pathlib.Path(_WORKDIR.value) / f"seed{seed}" / recipe


def stages(row: Row) -> list[tuple[str, str | None]]:
    """The row's recipes, each with the one whose weights it begins with."""
    return [
        (row.baseline, None),
        (row.recipe, row.baseline),
        (f"{row.recipe}_finetune", row.recipe),
    ]


def train(recipe: str, begin: str | None, seed: int) -> bool:
    """Does a run unless it is finished; whether it is finished then."""
    workdir = workdir_of(recipe, seed)
    if (workdir / "model.keras").is_file():
        return True
    log = pathlib.Path(_OUTPUT.value) / f"{recipe}_seed{seed}.log"
    command = [
        sys.executable,
        "train.py",
        f"--flagfile=models/recipes/{recipe}.flags",
        f"--workdir={workdir}",
        f"--seed={seed}",
        *([f"--init_from={workdir_of(begin, seed)}"] if begin else []),
        *_FLAGS.value,
    ]
    say(f"{recipe}, seed {seed}: starts")
    code, minutes = recipe_runs.run(
        command, log, f"python {' '.join(command[1:])}"
    )
    if code:
        say(f"{recipe}, seed {seed}: FAILED after {minutes:.1f} min: {log}")
        return False
    say(
        f"{recipe}, seed {seed}: error {error_of(recipe, seed):.2f} % in "
        f"{minutes:.1f} min"
    )
    return True


def error_of(recipe: str, seed: int) -> float:
    """Test error after the last epoch, percent."""
    last = metrics_log.read(workdir_of(recipe, seed) / "metrics.jsonl")[-1]
    return round(100 * (1 - last["val_accuracy"]), 2)


def result(row: Row, seed: int, images) -> dict | None:
    """What a finished row has come to; None if it is not finished."""
    recipe = f"{row.recipe}_finetune"
    path = workdir_of(recipe, seed) / "model.keras"
    if not path.is_file():
        return None
    model = keras.saving.load_model(path, compile=False)
    small = tf_ssl.shrink(model)
    before, after = (
        sum(tf_ssl.multiply_adds(m).values()) for m in (model, small)
    )
    sizes = COUNTERS[row.counts](model)
    percent = flop(model, 2 if row.counts == _NEURONS else 4)
    error = error_of(recipe, seed)
    return {
        "row": row.recipe,
        "seed": seed,
        "sizes": list(sizes),
        "flop": [round(each, 2) for each in percent],
        "error": error,
        "reached": is_reached(row, sizes, error),
        "baseline_error": error_of(row.baseline, seed),
        "sparse_error": error_of(row.recipe, seed),
        "shrunk_error": round(_test(small, images), 2),
        "shrunk_difference": small.shrink_report.difference,
        "shrunk_units": {
            name: list(sizes)
            for name, sizes in small.shrink_report.units.items()
        },
        "multiply_adds": [before, after],
        "parameters": list(small.shrink_report.parameters),
    }


def is_reached(row: Row, sizes: tuple[int, ...], error: float) -> bool:
    """Whether a result is at least as small and as good as the paper's."""
    fits = all(n <= most for n, most in zip(sizes, row.sizes, strict=True))
    # Of 10,000 images: hundredths of a percent.
    return fits and round(float(error), 2) <= row.error


def _test(model, images) -> float:
    """Test error, percent."""
    wrong = total = 0
    for batch, labels in images.test(500):
        predicted = keras.ops.convert_to_numpy(model(batch)).argmax(axis=1)
        wrong += int((predicted != labels.numpy()).sum())
        total += len(predicted)
    return 100 * wrong / total


def table(results: list[dict]) -> str:
    """A markdown table of the paper's rows and ours."""
    lines = [
        "# LeNet and an MLP on MNIST, structures learned away",
        "",
        f"`python benchmarks/{pathlib.Path(__file__).name}`; logs beside this "
        "file. Sizes are of the layers in their order; errors in percent of "
        "10,000 test images, after the last epoch; FLOP in percent of each "
        "convolution (dense layer), without its zero rows and columns; shrunk: "
        "what `tf_ssl.shrink` leaves, without zero filters and neurons. "
        "Fine-tuning moves images by up to one pixel, which the paper's does "
        "not.",
        "",
        "| row | counted | paper | error | FLOP | ours | error | FLOP | seed "
        "| reached | baseline | shrunk: multiply-adds, error, difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in results:
        row = ROWS[entry["row"]]
        before, after = entry["multiply_adds"]
        lines.append(
            f"| {row.title} | {row.counts} | {_sizes(row.sizes)} "
            f"| {row.error:.2f} | {_percent(row.flop)} "
            f"| {_sizes(entry['sizes'])} | {entry['error']:.2f} "
            f"| {_percent(entry['flop'])} | {entry['seed']} "
            f"| {'yes' if entry['reached'] else 'no'} "
            f"| {entry['baseline_error']:.2f} | {100 * after / before:.1f} %, "
            f"{entry['shrunk_error']:.2f}, "
            f"{entry['shrunk_difference']:.0e} |"
        )
    lines.append("")
    for recipe, row in ROWS.items():
        errors = [e["error"] for e in results if e["row"] == recipe]
        if errors:
            reached = sum(e["reached"] for e in results if e["row"] == recipe)
            lines.append(
                f"- {row.title}: mean error {statistics.mean(errors):.2f} %, "
                f"reached with {reached} of {len(errors)} seeds"
            )
    return "\n".join(lines) + "\n"


def _sizes(sizes) -> str:
    return "-".join(map(str, sizes))


def _percent(values) -> str:
    return "-".join(f"{each:g}" for each in values)


def report(images) -> str:
    """Writes table.md and results.json of all finished rows."""
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    results = [
        entry
        for recipe in _ROWS.value
        for seed in map(int, _SEEDS.value)
        if (entry := result(ROWS[recipe], seed, images))
    ]
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (output / "table.md").write_text(text)
    return text


def _check_flags() -> None:
    for recipe in _ROWS.value:
        if recipe not in ROWS:
            raise app.UsageError(
                f"--rows: Expected some of {list(ROWS)}. Received: {recipe}"
            )
    for seed in _SEEDS.value:
        if not seed.isdecimal():
            raise app.UsageError(
                f"--seeds: Expected integers >= 0. Received: {seed}"
            )


def main(argv):
    """Does the runs that are missing, writes the results after each row."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    _check_flags()
    # So that a run is ended with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    images = models.data.load("mnist")
    failed = []
    if not _REPORT_ONLY.value:
        for seed in map(int, _SEEDS.value):
            for recipe in _ROWS.value:
                for stage, begin in stages(ROWS[recipe]):
                    if not train(stage, begin, seed):
                        failed.append(f"{stage}, seed {seed}")
                        break
                report(images)
    print(report(images))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
