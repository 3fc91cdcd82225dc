"""Language models that learn hidden units away: the shape of the paper's table.

    python benchmarks/iss_lm.py --seeds=0,1,2

Each row is a run of train.py with a recipe of models/recipes: the dense
network; ISS; ISS with a smaller strength, which ends slightly larger; and the
direct design, dense from the start at the sizes that ISS found with the same
seed. With --rhn the recurrent highway network instead, over strengths. A run
whose workdir holds model.keras is skipped, one that was killed goes on from its
last checkpoint.

Perplexities are those of the model that `tf_ssl.shrink` returns, of a text in
one row with the state carried over.

Writes <recipe>_seed<n>.log, <recipe>_seed<n>.jsonl (an epoch a line), table.md,
results.json, sizes.png, perplexity.png and zeros.png after each run.

Reference: Wen et al., Learning intrinsic sparse structures within long
short-term memory, ICLR 2018, tables 1 and 2, figure 4.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import recipe_runs
from absl import app, flags

import tf_ssl
import train
from models.run import metrics_log, tasks, unit_counts

_ROOT = recipe_runs.ROOT

# Recipe: title, whether it takes the sizes that iss_words has found.
LSTM = {
    "iss_words_baseline": ("dense", False),
    "iss_words": ("ISS", False),
    "iss_words_larger": ("ISS, smaller strength", False),
    "iss_words_direct": ("direct design", True),
}
RHN = {
    "iss_rhn_small_baseline": ("dense", False),
    "iss_rhn_small_1": ("ISS", False),
    "iss_rhn_small_2": ("ISS, larger strength", False),
}

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_RHN = flags.DEFINE_bool("rhn", False, "The recurrent highway network.")
_RECIPES = flags.DEFINE_list("recipes", [], "Some of the recipes; all.")
_OUTPUT = flags.DEFINE_string(
    "output", str(_ROOT / "docs/results/iss_lm"), "For the results."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", str(_ROOT / "runs/iss"), "For the runs."
)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")
_REPORT_ONLY = flags.DEFINE_bool(
    "report_only", False, "Write the results of the runs that are there."
)


def workdir_of(recipe: str, seed: int) -> pathlib.Path:
    """Where a run is."""
    return pathlib.Path(_WORKDIR.value) / f"seed{seed}" / recipe


def sizes_of(model: keras.Model) -> tuple[int, ...]:
    """Units of each recurrent layer."""
    return tuple(
        layer.units
        for layer in model.layers
        if isinstance(layer, keras.layers.RNN)
    )


def result(recipe: str, title: str, seed: int, task, draw: bool) -> dict | None:
    """What a finished run has come to; None if it is not finished.

    Args:
      recipe: of the run.
      title: of the row.
      seed: of the run.
      task: `tasks.NextWord`, for the text.
      draw: whether a picture of its zeros is drawn.
    """
    workdir = workdir_of(recipe, seed)
    if not (workdir / "model.keras").is_file():
        return None
    output = pathlib.Path(_OUTPUT.value)
    epochs = metrics_log.read(workdir / "metrics.jsonl")
    shutil.copy(
        workdir / "metrics.jsonl", output / f"{recipe}_seed{seed}.jsonl"
    )
    cached = workdir / "row.json"
    if cached.is_file() and not draw:
        return json.loads(cached.read_text())
    model = task.for_inference(
        keras.saving.load_model(workdir / "model.keras", compile=False)
    )
    small = tf_ssl.shrink(model)
    if draw:
        tf_ssl.shrink_figure(model, small).savefig(output / "zeros.png", dpi=60)
    found, _ = task.test(small)
    before, after = (
        sum(tf_ssl.multiply_adds(m, sample=task.sample(1)).values())
        for m in (model, small)
    )
    entry = {
        "recipe": recipe,
        "title": title,
        "seed": seed,
        "units": list(sizes_of(small)),
        "units_before": list(sizes_of(model)),
        **found,
        "parameters": small.count_params(),
        "multiply_adds": [before, after],
        "difference": float(small.shrink_report.difference),
        "sizes": [
            [
                n
                for key, n in epoch.items()
                if key.startswith(unit_counts.PREFIX)
            ]
            for epoch in epochs
        ],
        "seconds": sum(epoch["seconds"] for epoch in epochs),
    }
    cached.write_text(json.dumps(entry))
    return entry


def table(results: list[dict]) -> str:
    """Markdown: a row a run, and the means over seeds."""
    lines = [
        "| network | seed | units | parameters | multiply-adds a word | "
        "perplexity, validation | test |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in results:
        steps = 35
        lines.append(
            f"| {entry['title']} | {entry['seed']} "
            f"| {', '.join(map(str, entry['units']))} "
            f"| {entry['parameters']:,} "
            f"| {entry['multiply_adds'][1] // steps:,} "
            f"| {entry['valid_perplexity']:.2f} "
            f"| {entry['test_perplexity']:.2f} |"
        )
    lines.append("")
    for title in dict.fromkeys(entry["title"] for entry in results):
        rows = [entry for entry in results if entry["title"] == title]
        valid, test = (
            statistics.mean(row[f"{split}_perplexity"] for row in rows)
            for split in ("valid", "test")
        )
        lines.append(
            f"- {title}, mean of {len(rows)} seed(s): validation {valid:.2f}, "
            f"test {test:.2f}"
        )
    return "\n".join(lines) + "\n"


def plot(results: list[dict], output: pathlib.Path) -> None:
    """Perplexity against size; sizes over epochs."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    for title in dict.fromkeys(entry["title"] for entry in results):
        rows = [entry for entry in results if entry["title"] == title]
        axes.plot(
            [sum(row["units"]) for row in rows],
            [row["valid_perplexity"] for row in rows],
            "o",
            label=title,
        )
    axes.set(xlabel="units", ylabel="validation perplexity", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    drawing.savefig(output / "perplexity.png", dpi=120)

    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    for i, entry in enumerate(r for r in results if any(r["sizes"])):
        for layer, sizes in enumerate(zip(*entry["sizes"], strict=True), 1):
            axes.plot(
                range(1, len(sizes) + 1),
                sizes,
                ["-", "--"][(layer - 1) % 2],
                color=f"C{i}",
                label=f"{entry['title']}, layer {layer}, seed {entry['seed']}",
            )
    axes.set(xlabel="epoch", ylabel="units", ylim=(0, None))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="x-small")
    drawing.savefig(output / "sizes.png", dpi=120)


def report(rows: dict, seeds: list[int], task) -> str:
    """Writes table.md, results.json and the pictures of all finished runs."""
    output = pathlib.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    pictured = next((r for r in rows if not r.endswith("baseline")), None)
    results = [
        entry
        for recipe, (title, _) in rows.items()
        for seed in seeds
        if (
            entry := result(
                recipe,
                title,
                seed,
                task,
                recipe == pictured and seed == seeds[0],
            )
        )
    ]
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    (output / "table.md").write_text(text)
    if results:
        plot(results, output)
    return text


def main(argv):
    """Does the runs that are missing, writes the results after each."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    rows = RHN if _RHN.value else LSTM
    for recipe in _RECIPES.value:
        if recipe not in rows:
            raise app.UsageError(
                f"--recipes: Expected some of {list(rows)}. Received: {recipe}"
            )
    for seed in _SEEDS.value:
        if not seed.isdecimal():
            raise app.UsageError(
                f"--seeds: Expected integers >= 0. Received: {seed}"
            )
    seeds = [int(seed) for seed in _SEEDS.value]
    # So that a run is ended with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    options = flags.FlagValues()
    train.define_flags(options)
    first = _ROOT / f"models/recipes/{next(iter(rows))}.flags"
    options(["train.py", f"--flagfile={first}", *_FLAGS.value])
    task = tasks.open_task(options)
    failed = []
    if not _REPORT_ONLY.value:
        for seed in seeds:
            for recipe, (_, takes_sizes) in rows.items():
                if _RECIPES.value and recipe not in _RECIPES.value:
                    continue
                more = []
                if takes_sizes:
                    found = workdir_of("iss_words", seed) / "row.json"
                    if not found.is_file():
                        failed.append(f"{recipe}, seed {seed}: no iss_words")
                        continue
                    units = json.loads(found.read_text())["units"]
                    more = [f"--hidden={','.join(map(str, units))}"]
                log = f"{_OUTPUT.value}/{recipe}_seed{seed}.log"
                workdir = workdir_of(recipe, seed)
                more += [f"--seed={seed}", *_FLAGS.value]
                if not recipe_runs.train(recipe, workdir, log, more):
                    failed.append(f"{recipe}, seed {seed}")
                report(rows, seeds, task)
    print(report(rows, seeds, task))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
