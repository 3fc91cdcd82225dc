"""Layers of AlexNet at the paper's ranks, against the whole layers.

    PYTHONPATH=. python benchmarks/decompose_alexnet.py --threads=2

conv3 to conv5 of AlexNet without groups, 13 x 13 maps, whose kernels are made
of random factors of the ranks that the paper's L2 force learned (124, 106,
129; planted here, not learned). `tf_ssl.decompose` finds the ranks from the
energy; each layer and its two factors, and the chain of all three, are timed in
turn in one run, at two batch sizes. Checked in the same run: outputs.

Writes alexnet.json and table.md.

Reference: Wen et al., "Coordinating Filters for Faster Deep Neural Networks",
ICCV 2017, table 4.
"""

import json

import keras
import numpy as np
import small_runs
from absl import app, flags

import tf_ssl

_METHOD = flags.DEFINE_enum("method", "svd", ["svd", "pca", "channel"], "How.")
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Images a call.")
_SECONDS = flags.DEFINE_float("seconds", 6.0, "For a layer and batch.", 0.1)
small_runs.define_flags("decompose")

# Layer: channels, filters, rank, the paper's speed-up on a CPU and in theory.
LAYERS = {
    "conv3": (256, 384, 124, 2.45, 2.65),
    "conv4": (384, 384, 106, 2.76, 3.26),
    "conv5": (384, 256, 129, 1.64, 1.85),
}
# Rounding to float32 leaves 1e-14 of the energy outside the planted ranks.
_ENERGY = 1 - 1e-9


def chain(names):
    """The layers in sequence, with kernels of the planted ranks."""
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((13, 13, LAYERS[names[0]][0]))])
    for name in names:
        channels, filters, rank, *_ = LAYERS[name]
        layer = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=name
        )
        model.add(layer)
        factors = [
            random.standard_normal(shape)
            for shape in ((9 * channels, rank), (rank, filters))
        ]
        kernel = factors[0] @ factors[1] / np.sqrt(9 * channels * rank)
        layer.kernel.assign(kernel.reshape(3, 3, channels, filters))
        layer.bias.assign(0.1 * random.standard_normal(filters))
    return model


def measure(names) -> dict:
    """Times of one chain and of its factors."""
    whole = chain(names)
    start = small_runs.time.monotonic()
    low_rank = tf_ssl.decompose(whole, energy=_ENERGY, method=_METHOD.value)
    seconds = small_runs.time.monotonic() - start
    ranks = {x.name: x.rank for x in low_rank.decompose_report.layers}
    images = np.random.default_rng(1).standard_normal(
        (2, *whole.input_shape[1:]), np.float32
    )
    difference = tf_ssl.relative_difference(whole(images), low_rank(images))
    if _METHOD.value != "channel" and ranks != {
        name: LAYERS[name][2] for name in names
    }:
        raise ValueError(f"Expected the planted ranks. Found: {ranks}")
    if not difference < 1e-5:
        raise ValueError(f"Expected the same outputs. Found: {difference:.1e}")
    times = tf_ssl.measure_latency(
        {"whole": whole, "low rank": low_rank},
        batch_sizes=[int(n) for n in _BATCHES.value],
        seconds=_SECONDS.value,
    )
    before, after = (tf_ssl.multiply_adds(m).total for m in (whole, low_rank))
    return {
        "layers": "-".join(names),
        "ranks": ranks,
        "difference": difference,
        "decompose_seconds": seconds,
        "fewer_multiply_adds": before / after,
        "ms": {
            side: {
                n: [latency.median_ms, latency.spread_ms]
                for n, latency in each.items()
            }
            for side, each in times.items()
        },
    }


def row(found) -> list[str]:
    """A row of the table."""
    names = found["layers"].split("-")
    paper = LAYERS[names[0]][3:] if len(names) == 1 else ("", "")
    cells = [
        found["layers"],
        "-".join(map(str, found["ranks"].values())),
        f"{found['difference']:.0e}",
    ]
    for n in found["ms"]["whole"]:
        (before, _), (after, _) = (
            found["ms"][side][n] for side in ("whole", "low rank")
        )
        cells.append(f"{before:.2f} → {after:.2f} ms, {before / after:.2f}x")
    return [*cells, f"{found['fewer_multiply_adds']:.2f}x", *map(str, paper)]


def main(argv):
    folder = small_runs.begin(argv)
    found = [measure(names) for names in ([n] for n in LAYERS)]
    found.append(measure(list(LAYERS)))
    (folder / "alexnet.json").write_text(json.dumps(found, indent=1) + "\n")
    header = ["layers", "ranks found", "difference"]
    header += [f"batch {n}" for n in _BATCHES.value]
    header += ["fewer multiply-adds", "paper: CPU", "paper: in theory"]
    print(
        small_runs.write_table(
            folder,
            f"AlexNet's layers at the paper's ranks, {_METHOD.value}",
            header,
            [row(each) for each in found],
        )
    )


if __name__ == "__main__":
    app.run(main)
