"""Latency of transformers of ordinary size, shrunk by half of their units.

    PYTHONPATH=. python benchmarks/shrink_transformers.py
      --output=docs/results/shrink_transformers

A ViT-B (224 pixels, patches of 16) and a BERT-base (128 tokens) of KerasHub, 12
layers, 768 wide, 12 heads, 3,072 inner units; random weights. Half of the heads
and of the inner units are dead (planted, not learned) and removed by
tf_ssl.shrink. In one run, in turn: the model, the shrunk one, and one of the
same sizes built by hand from Keras' own layers (6 heads of 64, 1,536 inner
units). Prints medians, ratios, and the seconds that finding and shrinking took.

With --only=time nothing is measured but those seconds, and for
keras.applications.ConvNeXtTiny those of an epoch's end of
tf_ssl.callbacks.SparsityLogger with all structures.

--layers, --width and the other sizes are for trying it out. Needs keras-hub:
requirements/no_deps.txt.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time

import keras
import numpy as np
from absl import app, flags

import tf_ssl
from benchmarks.transformer_models import TRANSFORMERS, Sizes, plant_half
from tests.tf_ssl.hub import planted

_MODELS = flags.DEFINE_list("models", ["vit", "bert", "convnext"], "Which.")
_ONLY = flags.DEFINE_enum("only", None, ["time"], "time: no latency.")
_SIZES = {
    field.name: flags.DEFINE_integer(
        field.name, field.default, "As benchmarks/transformer_models.py.", 1
    )
    for field in dataclasses.fields(Sizes)
}
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Examples a call.")
_SECONDS = flags.DEFINE_float(
    "seconds", 60.0, "For the rounds of a batch size; at least 5 rounds.", 0.0
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")
flags.register_validator(
    "models",
    lambda names: set(names) <= {"vit", "bert", "convnext"},
    message="Expected some of vit, bert, convnext.",
)
flags.register_multi_flags_validator(
    ["width", "heads", "inner"],
    lambda sizes: (
        sizes["width"] % sizes["heads"] == 0
        and sizes["heads"] % 2 == 0
        and sizes["inner"] % 2 == 0
    ),
    message="Expected --width to be a multiple of --heads; both even.",
)


# --- measurements -------------------------------------------------------------


def shrink(name, sizes) -> tuple:
    """The model with its zeros, the small one, inputs, and what it took."""
    build, _, draw, has_length = TRANSFORMERS[name]
    length = sizes.length if has_length else None
    model = planted.fill(build(sizes))
    inputs = draw(sizes, 2)
    begin = time.perf_counter()
    structures = tf_ssl.find_structures(
        model, **planted.with_length(tf_ssl.find_structures, length)
    )
    found = time.perf_counter()
    planted_structures = plant_half(structures, sizes)
    expected = planted.outputs(model, inputs)
    planting = time.perf_counter()
    small = tf_ssl.shrink(
        model,
        sample=inputs,
        tolerance=1e-3,
        **planted.with_length(tf_ssl.shrink, length),
    )
    shrunk = time.perf_counter()
    return (
        model,
        small,
        inputs,
        {
            "model": name,
            "structures": len(structures),
            "planted": planted_structures,
            "removed": sum(
                before - after
                for before, after in small.shrink_report.units.values()
            ),
            "parameters": [model.count_params(), small.count_params()],
            "difference": planted.difference(
                expected, planted.outputs(small, inputs)
            ),
            "find_s": found - begin,
            "shrink_s": shrunk - planting,
        },
    )


def measure(name, sizes) -> tuple[dict, list[dict]]:
    """What shrinking took; rows of latency, one a batch size."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model, small, inputs, about = shrink(name, sizes)
    if _ONLY.value:
        return about, []
    by_hand = TRANSFORMERS[name][1]
    whole = by_hand(sizes, sizes.heads, sizes.inner)
    half = by_hand(sizes, sizes.heads // 2, sizes.inner // 2)
    about["parameters_by_hand"] = [whole.count_params(), half.count_params()]
    fewer = sum(tf_ssl.multiply_adds(whole, sample=inputs).values()) / sum(
        tf_ssl.multiply_adds(half, sample=inputs).values()
    )
    del whole
    networks = {"before": model, "shrunk": small, "by hand": half}
    batches = tuple(map(int, _BATCHES.value))
    times = tf_ssl.measure_latency(
        networks,
        batch_sizes=batches,
        sample=TRANSFORMERS[name][2](sizes, max(batches)),
        seconds=_SECONDS.value,
    )
    rows = []
    for batch in batches:
        of_batch = {key: times[key][batch] for key in networks}
        ms = {key: latency.median_ms for key, latency in of_batch.items()}
        rows.append(
            {
                "model": name,
                "batch": batch,
                "ms": ms,
                "spread_ms": {k: t.spread_ms for k, t in of_batch.items()},
                "rounds": of_batch["shrunk"].num_runs,
                "faster": ms["before"] / ms["shrunk"],
                "fewer_multiply_adds": fewer,
                "against_by_hand": ms["shrunk"] / ms["by hand"],
            }
        )
    return about, rows


def measure_logger(repeats=3) -> dict:
    """Of ConvNeXtTiny: finding its structures, and an epoch's end."""
    keras.utils.clear_session()
    model = keras.applications.ConvNeXtTiny(weights=None)
    model.compile(keras.optimizers.SGD())
    begin = time.perf_counter()
    structures = tf_ssl.find_structures(model)
    found = time.perf_counter() - begin
    logger = tf_ssl.callbacks.SparsityLogger(structures=structures)
    logger.set_model(model)
    logger.on_train_begin()
    seconds = []
    for epoch in range(repeats):
        begin = time.perf_counter()
        logger.on_epoch_end(epoch, {})
        seconds.append(time.perf_counter() - begin)
    logger.on_train_end()
    return {
        "model": "convnext",
        "structures": len(structures),
        "units": sum(s.size for s in structures),
        "find_s": found,
        "epoch_end_s": seconds,
    }


# --- tables -------------------------------------------------------------------


def table(results) -> str:
    """In markdown."""
    about = ", ".join(f"{k} {v}" for k, v in results["machine"].items())
    flags_text = ", ".join(f"{k} {v}" for k, v in results["sizes"].items())
    lines = [
        f"By `python benchmarks/shrink_transformers.py`; {about}; "
        f"{flags_text}. Half of the heads and of the inner units planted.",
        "",
    ]
    if results["latency"]:
        lines += [
            "| model | batch | before, ms | shrunk, ms | by hand, ms | faster "
            "| fewer multiply-adds | shrunk / by hand | rounds |",
            "|---" * 9 + "|",
        ]
    for row in results["latency"]:
        times = " | ".join(
            f"{row['ms'][key]:.1f} ± {row['spread_ms'][key]:.1f}"
            for key in ("before", "shrunk", "by hand")
        )
        lines.append(
            f"| {row['model']} | {row['batch']} | {times} | "
            f"{row['faster']:.2f}x | {row['fewer_multiply_adds']:.2f}x | "
            f"{row['against_by_hand']:.3f} | {row['rounds']} |"
        )
    shrunk = [row for row in results["time"] if "shrink_s" in row]
    if shrunk:
        lines += [
            "",
            "| model | structures | units removed | parameters | by hand | "
            "difference | find_structures, s | shrink, s |",
            "|---" * 8 + "|",
        ]
    for row in shrunk:
        before, after = row["parameters"]
        by_hand = row.get("parameters_by_hand")
        lines.append(
            f"| {row['model']} | {row['structures']} | {row['removed']:,} | "
            f"{before:,} → {after:,} | "
            f"{f'{by_hand[1]:,}' if by_hand else '–'} | "
            f"{row['difference']:.1e} | {row['find_s']:.2f} | "
            f"{row['shrink_s']:.2f} |"
        )
    for row in results["time"]:
        if "epoch_end_s" in row:
            lines += [
                "",
                f"ConvNeXtTiny: {row['structures']} structures of "
                f"{row['units']:,} units, found in {row['find_s']:.2f} s; an "
                "epoch's end of SparsityLogger with all of them: "
                f"{np.median(row['epoch_end_s']):.2f} s, median of "
                f"{len(row['epoch_end_s'])}.",
            ]
    return "\n".join(lines) + "\n"


def main(argv):
    del argv
    sizes = Sizes(**{name: flag.value for name, flag in _SIZES.items()})
    results = {
        "machine": tf_ssl.machine(),
        "sizes": dataclasses.asdict(sizes),
        "time": [],
        "latency": [],
    }
    output = _OUTPUT.value and pathlib.Path(_OUTPUT.value)
    for name in _MODELS.value:
        if name == "convnext":
            about, rows = measure_logger(), []
        else:
            about, rows = measure(name, sizes)
        results["time"].append(about)
        results["latency"] += rows
        print(json.dumps([about, *rows]), flush=True)
        if output:
            # What is done stays, if a later model fails.
            output.mkdir(parents=True, exist_ok=True)
            kind = f"_{_ONLY.value}" if _ONLY.value else ""
            (output / f"transformers{kind}.json").write_text(
                json.dumps(results, indent=1) + "\n"
            )
            (output / f"table{kind}.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    app.run(main)
