"""Latency of shrunk networks against the networks they come from.

    PYTHONPATH=. python benchmarks/shrink_latency.py
      --output=docs/results/shrink

Random weights; the given share of all units is zeroed (planted, not learned)
and removed by tf_ssl.shrink: units drawn at random, of which groups of a
convolution must keep as many as the fullest group, or, with --even, as many of
each half of a layer. With --paper the filters that go are as many as in the
paper's networks, or their residual branches (what it calls columns, beyond
whole channels, is left alone). In one run, in turn: the network, the
shrunk one, and a network of the same sizes that is built anew from the shrunk
one's configuration and has random weights. Prints times, multiply-adds, how
much of their reduction becomes time, and the mean of the ratios of
the layers alone, which is the paper's "speedup".

Reference: Wen et al., Learning structured sparsity in deep neural networks,
NIPS 2016, tables 1, 3, 4 and section 4.2.
"""

import json
import pathlib

import keras
import numpy as np
from absl import app, flags

import models
import tf_ssl

# Filters that stay in the paper's networks: LeNet 2; ConvNet 2, rows of table
# 3; AlexNet, rows of table 4, in equal number of each group of the layers that
# read them.
_PAPER_FILTERS = {
    "lenet": {"conv1": 5, "conv2": 19},
    "cifar10_full": {"conv1": 16, "conv2": 23, "conv3": 63},
    "caffenet": {"conv1": 88, "conv2": 224, "conv3": 228, "conv4": 204},
}
# SSL-ResNet-14: one branch of two convolutions less at 32x32, two at 16x16.
_PAPER_BLOCKS = {
    "resnet20": ("stage1_block2", "stage2_block2", "stage2_block3"),
}

_MODELS = flags.DEFINE_list(
    "models", None, "Names; default: the five of the table, or the paper's."
)
_SHARE = flags.DEFINE_float("share", 0.5, "Of units that go.", 0.0, 1.0)
_EVEN = flags.DEFINE_bool("even", False, "As many units of each half.")
_PAPER = flags.DEFINE_bool("paper", False, "The paper's filters and branches.")
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Examples a call.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "For a network and batch.", 0.1)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


def plant(model, name):
    """Zeroes units; all others are alive."""
    for variable in model.variables:
        # ResNet-50 begins with scales of 0, and so with dead branches.
        if variable.path.endswith("/gamma"):
            variable.assign(np.ones(variable.shape))
    structures = tf_ssl.find_structures(model)
    if _PAPER.value:
        found = {s.name: s for s in structures}
        for layer, kept in _PAPER_FILTERS.get(name, {}).items():
            keep_of_halves(found[f"{layer}/filters"], kept)
        for block in tf_ssl.find_blocks(model):
            if block.name.startswith(_PAPER_BLOCKS.get(name, ())):
                block.zero([0])
    elif _EVEN.value:
        for structure in structures:
            if structure.kind != "input":
                kept = round((1 - _SHARE.value) * structure.size)
                keep_of_halves(structure, kept)
    else:
        tf_ssl.zero_random(structures, _SHARE.value)


def keep_of_halves(structure, kept):
    """Zeroes all but the first units of each half, where groups read them."""
    units = np.arange(structure.size)
    half = structure.size // 2
    first, second = units[:half], units[half:]
    structure.zero(
        np.concatenate([first[kept // 2 :], second[kept - kept // 2 :]])
    )


def measure(name) -> list[dict]:
    """Rows of one network, one a batch size."""
    keras.utils.clear_session()
    model = models.build(name)
    plant(model, name)
    small = tf_ssl.shrink(model)
    again = keras.Model.from_config(small.get_config())
    networks = {"before": model, "after": small, "built anew": again}
    work = {
        key: sum(tf_ssl.multiply_adds(network).values())
        for key, network in networks.items()
    }
    batches = tuple(map(int, _BATCHES.value))
    times = tf_ssl.measure_latency(
        networks, batch_sizes=batches, seconds=_SECONDS.value
    )
    layers = tf_ssl.compare(
        model, small, batch_sizes=batches, seconds=_SECONDS.value
    ).totals.speed_up_mean_of_layers
    rows = []
    for batch in batches:
        ms = {key: times[key][batch].median_ms for key in networks}
        fewer = work["before"] / work["after"]
        faster = ms["before"] / ms["after"]
        rows.append(
            {
                "model": name,
                "batch": batch,
                "ms": ms,
                "spread_ms": {k: times[k][batch].spread_ms for k in networks},
                "million_multiply_adds": {k: w / 1e6 for k, w in work.items()},
                "fewer_multiply_adds": fewer,
                "faster": faster,
                "mean_of_layers": layers[batch],
                "share_of_reduction": faster / fewer,
                "against_built_anew": ms["after"] / ms["built anew"],
                "difference": small.shrink_report.difference,
            }
        )
    return rows


def _machine():
    return ", ".join(
        f"{key} {value}" for key, value in tf_ssl.machine().items()
    )


def main(argv):
    del argv
    planted = (
        "the paper's filters and branches"
        if _PAPER.value
        else f"{_SHARE.value:.0%} of units{' of each half' * _EVEN.value}"
    )
    print(f"{_machine()}; {planted} removed")
    print(
        f"{'model':10}{'batch':>6}{'before ms':>11}{'after':>9}{'anew':>9}"
        f"{'faster':>8}{'mean of layers':>16}{'fewer MACs':>12}{'share':>7}"
        f"{'after/anew':>12}"
    )
    rows = []
    known = [*_PAPER_FILTERS, *_PAPER_BLOCKS]
    half = ["lenet", "cifar10_full", "resnet20", "caffenet", "resnet50"]
    for name in _MODELS.value or (known if _PAPER.value else half):
        for row in measure(name):
            rows.append(row)
            ms = row["ms"]
            print(
                f"{name:10}{row['batch']:6}{ms['before']:11.2f}"
                f"{ms['after']:9.2f}{ms['built anew']:9.2f}"
                f"{row['faster']:7.2f}x{row['mean_of_layers']:15.2f}x"
                f"{row['fewer_multiply_adds']:11.2f}x"
                f"{row['share_of_reduction']:7.2f}"
                f"{row['against_built_anew']:12.3f}",
                flush=True,
            )
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        kind = "_paper" * _PAPER.value or "_even" * _EVEN.value
        (output / f"latency{kind}.json").write_text(
            json.dumps(rows, indent=1) + "\n"
        )


if __name__ == "__main__":
    app.run(main)
