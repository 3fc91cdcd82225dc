"""Latency of shrunk networks against the networks they come from.

    PYTHONPATH=. python benchmarks/shrink_latency.py
      --output=docs/results/shrink

Random weights; the given share of all units is zeroed (planted, not learned)
and removed by tf_ssl.shrink. In one run, in turn: the network, the shrunk one,
and a network of the same sizes that is built anew from the shrunk one's
configuration and has random weights. Prints times, multiply-adds, and how much
of the reduction of multiply-adds becomes time.
"""

import json
import pathlib

import keras
import numpy as np
from absl import app, flags

import models
import tf_ssl
from tf_ssl.latency import measure_latency
from tf_ssl.machine import machine
from tf_ssl.multiply_adds import multiply_adds

_MODELS = flags.DEFINE_list(
    "models", ["lenet", "convnet", "resnet20", "alexnet", "resnet50"], "Names."
)
_SHARE = flags.DEFINE_float("share", 0.5, "Of units that go.", 0.0, 1.0)
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Examples a call.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "For a network and batch.", 0.1)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


def plant(model, share):
    """Zeroes units; all others are alive."""
    for variable in model.variables:
        # ResNet-50 begins with scales of 0, and so with dead branches.
        if variable.path.endswith("/gamma"):
            variable.assign(np.ones(variable.shape))
    tf_ssl.zero_random(tf_ssl.find_structures(model), share)


def measure(name) -> list[dict]:
    """Rows of one network, one a batch size."""
    keras.utils.clear_session()
    model = models.build(name)
    plant(model, _SHARE.value)
    small = tf_ssl.shrink(model)
    again = keras.Model.from_config(small.get_config())
    networks = {"before": model, "after": small, "built anew": again}
    work = {
        key: sum(multiply_adds(network).values())
        for key, network in networks.items()
    }
    batches = tuple(map(int, _BATCHES.value))
    times = measure_latency(
        networks, batch_sizes=batches, seconds=_SECONDS.value
    )
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
                "share_of_reduction": faster / fewer,
                "against_built_anew": ms["after"] / ms["built anew"],
                "difference": small.shrink_report.difference,
            }
        )
    return rows


def _machine():
    return ", ".join(f"{key} {value}" for key, value in machine().items())


def main(argv):
    del argv
    print(f"{_machine()}; {_SHARE.value:.0%} of units removed")
    print(
        f"{'model':10}{'batch':>6}{'before ms':>11}{'after':>9}{'anew':>9}"
        f"{'faster':>8}{'fewer MACs':>12}{'share':>7}{'after/anew':>12}"
    )
    rows = []
    for name in _MODELS.value:
        for row in measure(name):
            rows.append(row)
            ms = row["ms"]
            print(
                f"{name:10}{row['batch']:6}{ms['before']:11.2f}"
                f"{ms['after']:9.2f}{ms['built anew']:9.2f}"
                f"{row['faster']:7.2f}x{row['fewer_multiply_adds']:11.2f}x"
                f"{row['share_of_reduction']:7.2f}"
                f"{row['against_built_anew']:12.3f}",
                flush=True,
            )
    if _OUTPUT.value:
        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        (output / "latency.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
