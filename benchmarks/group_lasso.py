"""Time of a training step with GroupLasso on every layer, against Keras' L2.

    python -m benchmarks.group_lasso --output=group_lasso.json

One network, trained by SGD with momentum; steps of all ways are interleaved in
one process, in another order each round. The baseline is
`keras.regularizers.L2` on the same kernels; a step without any regularizer
shows what either costs. Ratios are medians over rounds of a way's step to the
L2 step of the same round, of wall-clock time and of processor time of all
threads, which other programs disturb less. "penalty" is the wall-clock time of
all penalties with their gradients by themselves. Before it measures, each
penalty and its gradient are compared with NumPy's.
"""

import json
import pathlib
import platform
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import models
import tf_ssl

_MODEL = flags.DEFINE_string("model", "resnet20", "Name of a network.")
_SHAPE = flags.DEFINE_list("shape", ["32", "32", "3"], "Of an image.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples a step.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed rounds.", 2)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of an op.", 1)
_JIT = flags.DEFINE_bool("jit_compile", False, "Compile steps with XLA.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")

_STRENGTH = 1e-4
_BASELINE = "L2"
WAYS = {
    "none": None,
    _BASELINE: keras.regularizers.L2(_STRENGTH),
    "filter": tf_ssl.GroupLasso(_STRENGTH),
    "filter + shape": tf_ssl.GroupLasso(_STRENGTH, ("filter", "shape")),
    "filter, sqrt, l1": tf_ssl.GroupLasso(
        _STRENGTH, scale="sqrt", l1=_STRENGTH
    ),
    "layer": tf_ssl.GroupLasso(_STRENGTH, "layer"),
}


def make_step(regularizer):
    """A compiled step on fixed data, its penalties alone, and its model."""
    keras.utils.set_random_seed(0)
    shape = tuple(int(n) for n in _SHAPE.value)
    model = models.build(_MODEL.value, input_shape=shape, seed=0)
    tf_ssl.regularize(model, {"*": regularizer})
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rng = np.random.default_rng(0)
    images = tf.constant(
        rng.normal(size=(_BATCH_SIZE.value, *shape)), "float32"
    )
    labels = tf.constant(rng.integers(0, 10, _BATCH_SIZE.value))

    @tf.function(jit_compile=_JIT.value, autograph=False)
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            total = loss(labels, logits)
            penalties = model.losses
            if penalties:
                total += tf.add_n(penalties)
        variables = [v.value for v in model.trainable_variables]
        gradients = tape.gradient(total, variables)
        optimizer.apply(gradients, model.trainable_variables)
        return total

    @tf.function(jit_compile=_JIT.value, autograph=False)
    def penalties():
        variables = [k.variable.value for k in tf_ssl.find_kernels(model)]
        with tf.GradientTape() as tape:
            total = tf.add_n(model.losses)
        # All gradients in one number, so that each is computed and none sent.
        found = tape.gradient(total, variables)
        return total + tf.add_n([tf.reshape(g, [-1])[0] for g in found])

    return step, penalties if regularizer is not None else None, model


def check(model, regularizer) -> float:
    """Largest relative difference of penalties and gradients from NumPy's."""
    worst = 0.0
    for kernel in tf_ssl.find_kernels(model):
        own = kernel.variable.regularizer
        value = tf.constant(kernel.variable.value)
        with tf.GradientTape() as tape:
            tape.watch(value)
            penalty = own(value)
        gradient = tape.gradient(penalty, value).numpy()
        exact = value.numpy().astype(np.float64)
        expected = regularizer.l1 * np.abs(exact).sum()
        slope = regularizer.l1 * np.sign(exact)
        for part in own.partitions(exact.shape):
            root = part.group_size**0.5 if own.scale == "sqrt" else 1.0
            norms = part.norms(exact)
            expected += own.strength * root * norms.sum()
            slope += own.strength * root * exact / part.spread(norms)
        worst = max(
            worst,
            abs(float(penalty) / expected - 1.0),
            np.abs(gradient - slope).max() / np.abs(slope).max(),
        )
    return worst


def _ms(step) -> tuple[float, float]:
    """Wall-clock and processor time, ms."""
    start, cpu = time.perf_counter(), time.process_time()
    step().numpy()
    return (
        1e3 * (time.perf_counter() - start),
        1e3 * (time.process_time() - cpu),
    )


def _spread(values) -> dict:
    return {
        "median": float(np.median(values)),
        "quartiles": np.percentile(values, [25, 75]).tolist(),
    }


def _cpu_name() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    tf.get_logger().setLevel("ERROR")  # retracing is what we do
    steps, alone, differences = {}, {}, {}
    for name, regularizer in WAYS.items():
        steps[name], penalties, model = make_step(regularizer)
        if penalties is not None:
            alone[name] = penalties
            _ms(penalties)
        if isinstance(regularizer, tf_ssl.GroupLasso):
            differences[name] = check(model, regularizer)
            if differences[name] > 1e-4:
                raise RuntimeError(
                    f"{name}: differs from NumPy by {differences[name]:.1e}"
                )
        for _ in range(2):  # traced, and warm
            _ms(steps[name])
    wall = {name: [] for name in steps}
    cpu = {name: [] for name in steps}
    penalty = {name: [] for name in alone}
    rng = np.random.default_rng(0)
    for _ in range(_ROUNDS.value):
        for name in rng.permutation(list(steps)):
            wall_ms, cpu_ms = _ms(steps[name])
            wall[name].append(wall_ms)
            cpu[name].append(cpu_ms)
    for _ in range(10 * _ROUNDS.value):
        for name in rng.permutation(list(alone)):
            penalty[name].append(_ms(alone[name])[0])

    about = {
        "model": _MODEL.value,
        "num_kernels": len(tf_ssl.find_kernels(model)),
        "num_weights": model.count_params(),
        "batch_size": _BATCH_SIZE.value,
        "rounds": _ROUNDS.value,
        "threads": _THREADS.value,
        "jit_compile": _JIT.value,
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
        "cpu": _cpu_name(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    rows = {
        name: {
            "wall_ms": _spread(wall[name]),
            "wall_ratio": _spread(np.divide(wall[name], wall[_BASELINE])),
            "cpu_ms": _spread(cpu[name]),
            "cpu_ratio": _spread(np.divide(cpu[name], cpu[_BASELINE])),
            "penalty_ms": _spread(penalty[name]) if name in alone else None,
            "difference": differences.get(name),
        }
        for name in steps
    }
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"{'':18}{'wall ms':>9}{'/ L2':>7}{'quartiles':>13}{'CPU ms':>9}"
        f"{'/ L2':>7}{'quartiles':>13}{'penalty ms':>12}{'from NumPy':>12}"
    )
    for name, row in rows.items():
        print(f"{name:18}{_cells(row)}")
    if _OUTPUT.value:
        times = {"wall_ms": wall, "cpu_ms": cpu, "penalty_ms": penalty}
        found = {"about": about, "ways": rows, "times": times}
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(found, indent=1))


def _cells(row) -> str:
    line = ""
    for clock in ("wall", "cpu"):
        ratio = row[f"{clock}_ratio"]
        quartiles = "-".join(f"{value:.2f}" for value in ratio["quartiles"])
        line += f"{row[f'{clock}_ms']['median']:9.1f}{ratio['median']:7.3f}"
        line += f"{quartiles:>13}"
    if row["penalty_ms"]:
        line += f"{row['penalty_ms']['median']:12.2f}"
    if row["difference"] is not None:
        line += f"{row['difference']:12.1e}"
    return line


if __name__ == "__main__":
    app.run(main)
