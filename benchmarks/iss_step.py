"""Time of a training step of a language model with ISS, against without.

    python benchmarks/iss_step.py --hidden=650,650 --threads=2

The same network and text, SGD with clipping; with `GroupLassoOptimizer` as
`train.py --iss_strength` makes it, and without. Steps are interleaved in one
process, in an order that changes every round. Reported: median step, and the
median over rounds of the ratio to the dense step of the same round, of
wall-clock time and of processor time of all threads, which other programs
disturb less.
"""

import json
import os
import pathlib
import random
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import models
import tf_ssl
from models import run
from models.run.tasks.next_word import CrossEntropy

_HIDDEN = flags.DEFINE_list("hidden", ["650", "650"], "Units of the layers.")
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 10000, "Words.", 3)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "Rows of a batch.", 1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 35, "Words of a row.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds.", 3)
_THREADS = flags.DEFINE_integer("threads", 2, "TensorFlow threads.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def compiled_step(iss_strength: float):
    """A training step of the network."""
    model = models.build(
        "ptb_lstm",
        vocab_size=_VOCAB_SIZE.value,
        hidden=tuple(map(int, _HIDDEN.value)),
        embedding=int(_HIDDEN.value[0]),
        dropout=0.4,
        seed=0,
    )
    core = run.optimizers.build("sgd", 1.0, global_clipnorm=5.0)
    optimizer = run.Sparsity(iss_strength=iss_strength).wrap(core, model)
    optimizer.build(model.trainable_variables)
    loss_fn = CrossEntropy(scale=_NUM_STEPS.value)

    @tf.function(autograph=False)
    def step(words, targets):
        with tf.GradientTape() as tape:
            loss = loss_fn(targets, model(words, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    text = np.random.default_rng(0).integers(
        _VOCAB_SIZE.value, size=(_BATCH_SIZE.value, _NUM_STEPS.value + 1)
    )
    words, targets = tf.constant(text[:, :-1]), tf.constant(text[:, 1:])
    steps = {"dense": compiled_step(0.0), "ISS": compiled_step(0.002)}
    times = {way: [] for way in steps}
    order = list(steps)
    for number in range(_ROUNDS.value + 2):
        random.Random(number).shuffle(order)
        for way in order:
            start, begun = time.perf_counter(), time.process_time()
            steps[way](words, targets).numpy()
            if number >= 2:  # warm-up
                wall = 1e3 * (time.perf_counter() - start)
                times[way].append((wall, 1e3 * (time.process_time() - begun)))
    results = {
        "hidden": [int(n) for n in _HIDDEN.value],
        "vocab_size": _VOCAB_SIZE.value,
        "words_a_step": _BATCH_SIZE.value * _NUM_STEPS.value,
        "threads": _THREADS.value,
        "rounds": _ROUNDS.value,
        "machine": str(tf_ssl.machine()),
    }
    ratios = np.array(times["ISS"]) / np.array(times["dense"])
    for i, clock in enumerate(("wall", "cpu")):
        results[clock] = {
            "dense_ms": float(np.median(np.array(times["dense"])[:, i])),
            "iss_ms": float(np.median(np.array(times["ISS"])[:, i])),
            "ratio": float(np.median(ratios[:, i])),
            "ratio_quartiles": np.percentile(ratios[:, i], [25, 75]).tolist(),
        }
    print(json.dumps(results, indent=1))
    if _OUTPUT.value:
        path = pathlib.Path(_OUTPUT.value)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
