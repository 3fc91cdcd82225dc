"""Time of a training step with GroupLassoOptimizer, against its inner one.

    python benchmarks/group_lasso_optimizer.py --threads=2

A stack of convolutions with shortcuts, the shapes of ResNet-20 on CIFAR-10
(16, 32 and 64 filters), trained on random images with momentum and with Adam.
The baseline is the same model with the wrapped optimizer alone; steps of all
ways are interleaved in one process, in an order that changes every round.
Reported: median step, its quartiles, and the median over rounds of the ratio
to the baseline of the same round, of wall-clock time and of processor time of
all threads, which other programs disturb less.
"""

import json
import pathlib
import random
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_ssl

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Timed rounds.", 3)
_BLOCKS = flags.DEFINE_integer("blocks", 3, "Blocks of a width.", 1)
_THREADS = flags.DEFINE_integer("threads", 2, "TensorFlow threads.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(1e-3),
}
_WAYS = {
    "alone": None,
    "subgradient": {"update": "subgradient"},
    "proximal": {"update": "proximal"},
}


def build_model():
    """Residual stack of `6 * blocks` convolutions of 3x3, and its structures.

    The units of a block's first convolution are its filters with the channels
    of the second that read them; filters of the second are counted alone.
    """
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    pairs = []
    for filters in (16, 32, 64):
        for block in range(_BLOCKS.value):
            stride = 2 if filters > 16 and block == 0 else 1
            shortcut = x
            first = layers.Conv2D(
                filters, 3, stride, padding="same", use_bias=False
            )
            second = layers.Conv2D(filters, 3, padding="same", use_bias=False)
            x = layers.ReLU()(layers.BatchNormalization()(first(x)))
            x = layers.BatchNormalization()(second(x))
            if stride > 1:
                shortcut = layers.Conv2D(filters, 1, 2)(shortcut)
            x = layers.ReLU()(layers.Add()([x, shortcut]))
            pairs.append((first, second))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    structures = []
    for first, second in pairs:
        filters = first.filters
        out = np.arange(filters).reshape(1, 1, 1, -1)
        structures += [
            tf_ssl.Structure(
                f"{first.name}/filters",
                filters,
                (
                    tf_ssl.Slice(first.kernel, "out", out),
                    tf_ssl.Slice(second.kernel, "in", out.reshape(1, 1, -1, 1)),
                ),
            ),
            tf_ssl.Structure(
                f"{second.name}/filters",
                filters,
                (tf_ssl.Slice(second.kernel, "out", out),),
            ),
        ]
    return model, structures


def _compiled_step(make, arguments):
    keras.utils.set_random_seed(0)
    model, structures = build_model()
    optimizer = make()
    if arguments is not None:
        optimizer = tf_ssl.GroupLassoOptimizer(
            optimizer, structures, 1e-4, **arguments
        )
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_fn(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


def _summary(times, baseline):
    quartiles = np.percentile(times, [25, 50, 75])
    ratios = np.array(times) / np.array(baseline)
    return {
        "median_ms": quartiles[1],
        "quartiles_ms": [quartiles[0], quartiles[2]],
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": np.percentile(ratios, [25, 75]).tolist(),
    }


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    images = tf.constant(
        rng.normal(size=(_BATCH_SIZE.value, 32, 32, 3)), tf.float32
    )
    labels = tf.constant(rng.integers(10, size=_BATCH_SIZE.value))
    results = {
        "batch_size": _BATCH_SIZE.value,
        "convolutions": 6 * _BLOCKS.value + 1,
        "threads": _THREADS.value,
        "rounds": _ROUNDS.value,
    }
    print(json.dumps(results))
    print(
        f"{'optimizer':10} {'way':12} {'median ms':>10} {'ratio':>7} "
        f"{'CPU ms':>8} {'ratio':>7}"
    )
    for name, make in _OPTIMIZERS.items():
        steps = {
            way: _compiled_step(make, arguments)
            for way, arguments in _WAYS.items()
        }
        times = {way: [] for way in steps}
        cpu = {way: [] for way in steps}
        losses = {way: float(f(images, labels)) for way, f in steps.items()}
        if len({round(loss, 4) for loss in losses.values()}) > 1:
            raise AssertionError(f"First losses differ: {losses}")
        order = list(steps)
        for number in range(_ROUNDS.value + 2):
            random.Random(number).shuffle(order)
            for way in order:
                start, begun = time.perf_counter(), time.process_time()
                steps[way](images, labels).numpy()
                if number >= 2:  # Warm-up.
                    times[way].append(1e3 * (time.perf_counter() - start))
                    cpu[way].append(1e3 * (time.process_time() - begun))
        results[name] = {
            way: {
                "wall": _summary(times[way], times["alone"]),
                "cpu": _summary(cpu[way], cpu["alone"]),
            }
            for way in steps
        }
        for way, result in results[name].items():
            print(
                f"{name:10} {way:12} {result['wall']['median_ms']:10.1f} "
                f"{result['wall']['ratio']:7.3f} "
                f"{result['cpu']['median_ms']:8.1f} "
                f"{result['cpu']['ratio']:7.3f}"
            )
    if _OUTPUT.value:
        path = pathlib.Path(_OUTPUT.value)
        path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
