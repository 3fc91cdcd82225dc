"""Latency of recurrent networks without the units that ISS removes.

    PYTHONPATH=. python benchmarks/iss_latency.py --network=ptb_lstm
      --output=docs/results/iss

Random weights; units are zeroed so that as many stay as in the talk's networks
(planted, not learned), and removed by tf_ssl.shrink, which compares the two
networks' outputs. Then, in one run and in turn: the network and its smaller
ones. Prints times, how much faster, how many multiply-adds fewer, the talk's
ratio, and the ratio that the project promises.

ptb_lstm: batch 10, 30 steps. bidaf: batch 1, a text of 128 words and a question
of 12. rhn: batch 10, 30 steps; the talk gives no time for it. With
--jit_compile XLA compiles all of them, for these shapes.

Reference: Wen et al., Learning intrinsic sparse structures within long
short-term memory, ICLR 2018, tables 1 to 4.
"""

import dataclasses
import json
import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

import models
import tf_ssl

_NETWORK = flags.DEFINE_enum(
    "network", "ptb_lstm", ["ptb_lstm", "bidaf", "rhn"], "Which one."
)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "For the rounds.", 0.1)
_THREADS = flags.DEFINE_integer("threads", 2, "TensorFlow threads.", 1)
_JIT = flags.DEFINE_bool("jit_compile", False, "XLA.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


@dataclasses.dataclass(frozen=True)
class Row:
    """A smaller network of the talk.

    Attributes:
        units: that stay, by structure.
        talk: how much faster it is in the talk.
        promised: how much faster it has to be here.
    """

    units: dict
    talk: float | None = None
    promised: float | None = None


def _lstms(first, second):
    return {"lstm1/units": first, "lstm2/units": second}


def _directions(*sizes):
    names = [
        f"{name}_{way}/units"
        for name in ("modelling1", "modelling2", "output")
        for way in ("forward", "backward")
    ]
    return dict(zip(names, sizes, strict=True))


ROWS = {
    "ptb_lstm": [
        Row(_lstms(373, 315), 10.59, 9.5),
        Row(_lstms(381, 535), 7.10, 7.10),
    ],
    "bidaf": [
        Row(_directions(87, 81, 87, 92, 74, 96), 1.06, 1.06),
        Row(_directions(51, 33, 42, 58, 37, 26), 1.39, 1.39),
        Row(_directions(20, 33, 40, 38, 31, 16), 1.73, 1.73),
        Row(_directions(23, 22, 35, 35, 25, 14), 2.26, 2.26),
    ],
    "rhn": [Row({"embedding/embedding": 517})],
}


def example(network):
    """One batch."""
    random = np.random.default_rng(0)
    if network != "bidaf":
        return random.integers(0, 10_000, (10, 30), np.int32)
    shapes = {"context": (1, 128), "question": (1, 12)}
    words = {
        name: random.integers(1, 1180, shape, np.int32)
        for name, shape in shapes.items()
    }
    characters = {
        f"{name}_chars": random.integers(1, 126, (*shape, 16), np.int32)
        for name, shape in shapes.items()
    }
    return words | characters


def without(model, units, batch):
    """The smaller network, with so many units."""
    random = np.random.default_rng(0)
    structures = tf_ssl.find_structures(model)
    for name, kept in units.items():
        structure = structures[name]
        gone = random.permutation(structure.size)[kept:]
        structure.zero(gone)
    small = tf_ssl.shrink(model, sample=batch)
    for name, kept in units.items():
        if small.shrink_report.units[name][1] != kept:
            raise AssertionError(f"{name}: {small.shrink_report}")
    return small


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    network = _NETWORK.value
    batch = example(network)
    rows = ROWS[network]
    dense = models.build(network, seed=0)
    weights = dense.get_weights()
    networks = {"dense": dense}
    for number, row in enumerate(rows):
        dense.set_weights(weights)
        networks[number] = without(dense, row.units, batch)
    dense.set_weights(weights)
    work = {
        key: sum(tf_ssl.multiply_adds(model, sample=batch).values())
        for key, model in networks.items()
    }
    times = tf_ssl.in_turn(
        {
            key: tf_ssl.inference(model, batch, _JIT.value)
            for key, model in networks.items()
        },
        _SECONDS.value,
    )
    about = ", ".join(
        f"{key} {value}" for key, value in tf_ssl.machine().items()
    )
    print(f"{network}; {about}{'; XLA' if _JIT.value else ''}")
    print(f"{'units':28}{'parameters':>12}{'ms':>10}{'spread':>8}", end="")
    print(f"{'faster':>8}{'talk':>7}{'at least':>9}{'fewer MACs':>12}", end="")
    print(f"{'difference':>12}")
    base = times["dense"].median_ms
    results = []
    for key, model in networks.items():
        row = Row({}) if key == "dense" else rows[key]
        report = getattr(model, "shrink_report", None)
        result = {
            "units": row.units,
            "parameters": sum(
                int(np.prod(v.shape)) for v in model.trainable_variables
            ),
            "ms": times[key].median_ms,
            "spread_ms": times[key].spread_ms,
            "rounds": times[key].num_runs,
            "faster": base / times[key].median_ms,
            "talk": row.talk,
            "promised": row.promised,
            "fewer_multiply_adds": work["dense"] / work[key],
            "difference": report.difference if report else None,
        }
        results.append(result)
        name = ", ".join(map(str, row.units.values())) or "dense"
        print(
            f"{name:28}{result['parameters']:12,}{result['ms']:10.2f}"
            f"{result['spread_ms']:8.2f}{result['faster']:7.2f}x"
            f"{_ratio(row.talk):>7}{_ratio(row.promised):>9}"
            f"{result['fewer_multiply_adds']:11.2f}x"
            f"{'' if report is None else f'{report.difference:.1e}':>12}"
        )
    if _OUTPUT.value:
        folder = pathlib.Path(_OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"latency_{network}{'_xla' if _JIT.value else ''}.json"
        content = {"machine": tf_ssl.machine(), "rows": results}
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def _ratio(value):
    return "" if value is None else f"{value:.2f}x"


if __name__ == "__main__":
    app.run(main)
