"""BiDAF that learns LSTM units away, on cloze questions and on SQuAD's format.

    python benchmarks/iss_bidaf.py --seeds=0
    python benchmarks/iss_bidaf.py --squad=xquad.en.json

Each row is a run of train.py with a recipe of models/recipes: the dense
network; from its weights, ISS on the six LSTM layers behind the attention, as
the paper; and on the contextual ones as well, which the paper leaves whole.
With --squad a file in SQuAD v1.1's format in place of the cloze questions, of
which every fifth paragraph is held out: with some hundred questions that tests
the path and not the paper's score. A run whose workdir holds model.keras is
skipped, one that was killed goes on from its last checkpoint.

Counted after `tf_ssl.shrink`, whose EM and F1 must be those before it. Beside
them two trivial answers: a word of the context, and, for cloze questions, a
name of it, both at random.

Writes <recipe>_seed<n>.log and .jsonl, table.md and results.json to --output.

Reference: Wen et al., Learning intrinsic sparse structures within long
short-term memory, ICLR 2018, tables 3 and 4.
"""

import json
import os
import pathlib
import shutil
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import recipe_runs
from absl import app, flags

import tf_ssl
import train
from models.data.questions import score
from models.run import tasks

ROWS = {
    "iss_bidaf_small_baseline": ("dense", None),
    "iss_bidaf_small_finetune": ("ISS", "iss_bidaf_small_baseline"),
    "iss_bidaf_small_all": (
        "ISS, contextual layers too",
        "iss_bidaf_small_baseline",
    ),
}

_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds.")
_SQUAD = flags.DEFINE_string("squad", None, "File in SQuAD v1.1's format.")
_OUTPUT = flags.DEFINE_string(
    "output",
    str(recipe_runs.ROOT / "docs/results/iss_bidaf"),
    "For the results; of --squad in its folder squad.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", str(recipe_runs.ROOT / "runs/iss_bidaf"), "For the runs."
)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")
_REPORT_ONLY = flags.DEFINE_bool(
    "report_only", False, "Write the results of the runs that are there."
)


def folder(flag) -> pathlib.Path:
    """Of --output or --workdir, for this set of questions."""
    path = pathlib.Path(flag.value)
    return path / "squad" if _SQUAD.value else path


def workdir_of(recipe: str, seed: int) -> pathlib.Path:
    """Where a run is."""
    return folder(_WORKDIR) / f"seed{seed}" / recipe


def units(model: keras.Model) -> dict[str, int]:
    """Units of each LSTM layer."""
    return {
        layer.name: layer.units
        for layer in model.layers
        if isinstance(layer, keras.layers.RNN)
    }


def random_word(data, seed: int = 0) -> dict:
    """EM and F1 of a word of the context, drawn at random.

    Args:
      data: `QuestionSet`.
      seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    starts, ends = [], []
    for inputs, _ in data.test(60):
        for row in np.asarray(inputs["context"]):
            logits = np.zeros(len(row))
            logits[generator.integers(np.count_nonzero(row))] = 1.0
            starts.append(logits)
            ends.append(logits)
    return score(data.texts(starts, ends), data.answers())


def result(recipe: str, seed: int, task) -> dict | None:
    """What a finished run has come to; None if it is not finished."""
    workdir = workdir_of(recipe, seed)
    if not (workdir / "model.keras").is_file():
        return None
    shutil.copy(
        workdir / "metrics.jsonl",
        folder(_OUTPUT) / f"{recipe}_seed{seed}.jsonl",
    )
    cached = workdir / "row.json"
    if cached.is_file():
        return json.loads(cached.read_text())
    model = keras.saving.load_model(workdir / "model.keras", compile=False)
    small = tf_ssl.shrink(model, sample=task.sample(4))
    before, _ = task.test(model)
    after, _ = task.test(small)
    entry = {
        "recipe": recipe,
        "title": ROWS[recipe][0],
        "seed": seed,
        "units": units(small),
        "parameters": [model.count_params(), small.count_params()],
        "before": before,
        "after": after,
        "difference": float(small.shrink_report.difference),
    }
    cached.write_text(json.dumps(entry))
    return entry


def table(results: list[dict], baselines: dict) -> str:
    """Markdown: a row a run, and the trivial answers."""
    lines = [
        "| network | seed | units, forwards-backwards: "
        "contextual, modelling1, modelling2, output | parameters "
        "| EM | F1 | after shrinking: EM | F1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in results:
        pairs = [
            "-".join(
                str(entry["units"][f"{layer}_{direction}"])
                for direction in ("forward", "backward")
            )
            for layer in ("contextual", "modelling1", "modelling2", "output")
        ]
        before, after = entry["before"], entry["after"]
        lines.append(
            f"| {entry['title']} | {entry['seed']} | {', '.join(pairs)} "
            f"| {entry['parameters'][1]:,} "
            f"| {before['exact_match']:.2f} | {before['f1']:.2f} "
            f"| {after['exact_match']:.2f} | {after['f1']:.2f} |"
        )
    for title, found in baselines.items():
        f1 = f"{found['f1']:.2f}" if "f1" in found else ""
        lines.append(
            f"| {title} | | | | {found['exact_match']:.2f} | {f1} | | |"
        )
    return "\n".join(lines) + "\n"


def report(task) -> str:
    """Writes table.md and results.json of all finished runs."""
    output = folder(_OUTPUT)
    output.mkdir(parents=True, exist_ok=True)
    results = [
        entry
        for recipe in ROWS
        for seed in map(int, _SEEDS.value)
        if (entry := result(recipe, seed, task))
    ]
    baselines = {"a word at random": random_word(task.data)}
    if task.data.guess_rate is not None:
        baselines["a name at random"] = {"exact_match": task.data.guess_rate}
    (output / "results.json").write_text(
        json.dumps({"runs": results, "trivial": baselines}, indent=1) + "\n"
    )
    text = f"{task}\n\n{table(results, baselines)}"
    (output / "table.md").write_text(text)
    return text


def main(argv):
    """Does the runs that are missing, writes the results after each."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    for seed in _SEEDS.value:
        if not seed.isdecimal():
            raise app.UsageError(
                f"--seeds: Expected integers >= 0. Received: {seed}"
            )
    # So that a run is ended with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    given = list(_FLAGS.value)
    if _SQUAD.value:
        given += ["--dataset=squad", f"--data_dir={_SQUAD.value}"]
    options = flags.FlagValues()
    train.define_flags(options)
    recipe = recipe_runs.ROOT / f"models/recipes/{next(iter(ROWS))}.flags"
    options(["train.py", f"--flagfile={recipe}", *given])
    task = tasks.open_task(options)
    failed = []
    for seed in [] if _REPORT_ONLY.value else map(int, _SEEDS.value):
        for recipe, (_, begin) in ROWS.items():
            more = [*given, f"--seed={seed}"]
            if begin:
                more.append(f"--init_from={workdir_of(begin, seed)}")
            log = folder(_OUTPUT) / f"{recipe}_seed{seed}.log"
            if not recipe_runs.train(
                recipe, workdir_of(recipe, seed), log, more
            ):
                failed.append(f"{recipe}, seed {seed}")
                break
            report(task)
    print(report(task))
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
