"""Timing for benchmarks/sparse_conv.py: ours and the baselines, round by round.

A way is a function without arguments. Baselines and ours take turns; figures
are medians. Every result of ours is compared with TensorFlow's dense one.
"""

import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from custom_ops import SparseKernel, sparse_conv2d

TOLERANCE = 1e-5  # of the largest output
# Convolutions in one call at batch 1, so that what a call costs is spread.
CALLS = 16


def milliseconds(run):
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def medians(ways, rounds):
    """Median milliseconds of each way, rounds interleaved."""
    times = {name: [] for name in ways}
    for run in ways.values():
        run()
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, run in ways.items():
            times[name].append(milliseconds(run))
    gc.enable()
    return {name: float(np.median(values)) for name, values in times.items()}


def peak_gflops(program, threads):
    """GFLOP/s of multiply-adds between registers, None without the program."""
    if not pathlib.Path(program).exists():
        return None
    text = subprocess.run(
        [program, "none", str(threads)], capture_output=True, text=True
    ).stdout
    return float(text.split("multiply-add peak ")[1].split()[0])


class Rivals:
    """Other packages, in a process of their own."""

    def __init__(self, python, threads):
        self.names = []
        if not python:
            return
        script = pathlib.Path(__file__).with_name("sparse_conv_rivals.py")
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [*python.split(), str(script), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names = json.loads(self._process.stdout.readline())

    def _do(self, **command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The process of the other packages has ended.")
        return json.loads(line)

    def make(self, name, w, batch, layer):
        """Prepares a way; `run` then times it."""
        path = f"{self._folder.name}/kernel.npy"
        np.save(path, w)
        self._do(
            do="make", name=name, kernel=path, batch=batch, layer=vars(layer)
        )

    def run(self, name, do="forward"):
        """Milliseconds, as measured there."""
        ms = self._do(do=do, name=name)
        time.sleep(0.01)  # its OpenMP threads spin on for a while
        return ms


class Bench:
    """One layer at one batch size."""

    def __init__(self, layer, batch, rng, data_format="NHWC"):
        self.layer = layer
        self.batch = batch
        self.data_format = data_format
        self.calls = CALLS if batch == 1 else 1
        shape = [batch, layer.size, layer.size, layer.channels]
        if data_format == "NCHW":
            shape = [batch, layer.channels, layer.size, layer.size]
        self.inputs = [
            tf.constant(rng.standard_normal(shape, np.float32))
            for _ in range(self.calls)
        ]

    def dense(self, w):
        """TensorFlow's convolution, with transposes where it has no NCHW."""
        kernel = tf.constant(w)
        stride = self.layer.stride

        def one(x):
            if self.data_format == "NHWC":
                return tf.nn.conv2d(x, kernel, stride, "SAME")
            y = tf.nn.conv2d(
                tf.transpose(x, [0, 2, 3, 1]), kernel, stride, "SAME"
            )
            return tf.transpose(y, [0, 3, 1, 2])

        return self._all(one)

    def ours(self, w, implementation="sparse"):
        kernel = SparseKernel.from_dense(w)

        def one(x):
            return sparse_conv2d(x, kernel, **self.arguments(implementation))

        return self._all(one)

    def arguments(self, implementation="sparse"):
        return {
            "strides": self.layer.stride,
            "padding": "SAME",
            "groups": self.layer.groups,
            "data_format": self.data_format,
            "implementation": implementation,
        }

    def _all(self, one):
        function = tf.function(lambda *inputs: [one(x) for x in inputs])
        return lambda: function(*self.inputs)

    def error(self, ours, dense):
        """Largest difference over the largest output; stops the program if it
        is more than rounding.
        """
        difference, size = 0.0, 0.0
        for a, b in zip(ours(), dense(), strict=True):
            difference = max(difference, float(tf.reduce_max(tf.abs(a - b))))
            size = max(size, float(tf.reduce_max(tf.abs(b))))
        error = difference / size if size else difference
        if not error <= TOLERANCE:
            sys.exit(f"{self.layer.name}: differs from dense by {error:.1e}")
        return error

    def preparation(self, w, rounds=5):
        """Milliseconds of a new pattern, and of new values in it, beyond those
        of a call: medians.
        """
        arguments = self.arguments()
        x = self.inputs[0]
        pattern, values = [], []
        rng = np.random.default_rng(1)
        for _ in range(rounds):
            # Positions that were not seen before: a mask moved along.
            w = np.roll(w, 1, axis=2) if w.shape[2] > 1 else np.roll(w, 1, 3)
            kernel = SparseKernel.from_dense(w)
            first = milliseconds(
                lambda k=kernel: sparse_conv2d(x, k, **arguments)
            )
            call = milliseconds(
                lambda k=kernel: sparse_conv2d(x, k, **arguments)
            )
            new = rng.standard_normal(kernel.num_nonzeros).astype(np.float32)
            other = SparseKernel(
                kernel.positions, tf.constant(new), kernel.shape
            )
            second = milliseconds(
                lambda k=other: sparse_conv2d(x, k, **arguments)
            )
            again = milliseconds(
                lambda k=other: sparse_conv2d(x, k, **arguments)
            )
            pattern.append(first - call)
            values.append(second - again)
        return float(np.median(pattern)), float(np.median(values))
