"""Time of a training step with intrinsic sparse structures, against without.

    PYTHONPATH=. python benchmarks/iss_step.py --output=docs/results/iss

Zaremba's medium language model (2 x 650 units, dropout 0.5), batch 20 x 35
steps, SGD with the global norm clipped at 5, on random words. The baseline is
the same model with SGD alone; the other has GroupLassoOptimizer around it, with
the units of both LSTM layers, the penalty's gradient inside the clip and the
threshold of each element, as the paper. Steps of both are interleaved in one
process, in an order that changes every round. Reported: median step and
quartiles, and the median over rounds of the ratio of a round's two steps, of
wall-clock time and of processor time of all threads, which other programs
disturb less.
"""

import json
import pathlib
import random
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import models
import tf_ssl

_SIZE = flags.DEFINE_enum(
    "size", "medium", ["small", "medium", "large"], "Of the network."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "Rows of a batch.", 1)
_STEPS = flags.DEFINE_integer("num_steps", 35, "Words of a row.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Timed rounds.", 3)
_THREADS = flags.DEFINE_integer("threads", 2, "TensorFlow threads.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


def compiled_step(with_iss):
    """A function of words and next words, that trains and gives the loss."""
    keras.utils.set_random_seed(0)
    model = models.build("ptb_lstm", size=_SIZE.value, seed=0)
    optimizer = keras.optimizers.SGD(1.0, global_clipnorm=5.0)
    if with_iss:
        optimizer = tf_ssl.GroupLassoOptimizer(
            optimizer,
            tf_ssl.find_structures(model),
            {"lstm*": 0.00245 / _STEPS.value},
            update="subgradient",
            clip="inside",
        )
    optimizer.build(model.trainable_variables)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(words, targets):
        with tf.GradientTape() as tape:
            loss = loss_fn(targets, model(words, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


def summary(times, baseline):
    """Of the steps of one way."""
    ratios = np.array(times) / np.array(baseline)
    return {
        "median_ms": float(np.median(times)),
        "quartiles_ms": np.percentile(times, [25, 75]).tolist(),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": np.percentile(ratios, [25, 75]).tolist(),
    }


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    generator = np.random.default_rng(0)
    shape = (_BATCH_SIZE.value, _STEPS.value)
    words, targets = (
        tf.constant(generator.integers(10_000, size=shape), tf.int32)
        for _ in range(2)
    )
    steps = {"dense": compiled_step(False), "iss": compiled_step(True)}
    losses = {way: float(f(words, targets)) for way, f in steps.items()}
    if abs(losses["dense"] - losses["iss"]) > 0.05:  # other dropout
        raise AssertionError(f"First losses differ: {losses}")
    wall = {way: [] for way in steps}
    cpu = {way: [] for way in steps}
    order = list(steps)
    for number in range(_ROUNDS.value + 1):
        random.Random(number).shuffle(order)
        for way in order:
            start, begun = time.perf_counter(), time.process_time()
            steps[way](words, targets).numpy()
            if number >= 1:  # Warm-up.
                wall[way].append(1e3 * (time.perf_counter() - start))
                cpu[way].append(1e3 * (time.process_time() - begun))
    about = ", ".join(
        f"{key} {value}" for key, value in tf_ssl.machine().items()
    )
    print(f"ptb_lstm, {_SIZE.value}, batch {shape}; {about}")
    print(
        f"{'way':8}{'median ms':>11}{'ratio':>8}{'CPU ms':>10}{'ratio':>8}"
        f"{'rounds':>8}"
    )
    results = {}
    for way in steps:
        results[way] = {
            "wall": summary(wall[way], wall["dense"]),
            "cpu": summary(cpu[way], cpu["dense"]),
        }
        print(
            f"{way:8}{results[way]['wall']['median_ms']:11.1f}"
            f"{results[way]['wall']['ratio']:8.3f}"
            f"{results[way]['cpu']['median_ms']:10.1f}"
            f"{results[way]['cpu']['ratio']:8.3f}{_ROUNDS.value:8}"
        )
    if _OUTPUT.value:
        folder = pathlib.Path(_OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"machine": tf_ssl.machine(), "batch": shape, "ways": results}
        text = json.dumps(content, indent=1) + "\n"
        (folder / f"step_{_SIZE.value}.json").write_text(text)


if __name__ == "__main__":
    app.run(main)
