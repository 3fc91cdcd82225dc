"""Time of encoding and decoding, against the same steps in TensorFlow ops.

    python benchmarks/codec.py --threads=1

The baseline is the talk's code, as a compiled graph: scaler 2.5 sigma, uniform
numbers, comparison, sign + 1, four levels a byte by arithmetic; and back by
divisions. Ours: scalers, encode, decode, through the TensorFlow ops. Rounds
are interleaved in one process.

Reference: Wen et al., TernGrad, NIPS 2017, and the ternary_encoder of the
talk (2 bits a level).
"""

import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

import custom_ops

_ELEMENTS = flags.DEFINE_integer("elements", 2**24, "Multiple of 4.", 4)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed rounds.", 1)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of an op.", 1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


# Operation by operation as the authors wrote it (bingrad_common.py of their
# repository, shown on the talk's slides), in TensorFlow 2's names.
@tf.function
def _graph_encode(gradient, seed):
    del seed
    mean, variance = tf.nn.moments(gradient, axes=[0])
    del mean
    scaler = 2.5 * tf.sqrt(variance)
    zeros = tf.zeros(tf.shape(gradient))
    sample = tf.random.uniform(tf.shape(gradient), 0.0, scaler)
    fires = tf.less(sample, tf.abs(gradient))
    ternary = tf.where(fires, tf.sign(gradient) * scaler, zeros)
    codes = tf.reshape(tf.add(tf.sign(ternary), 1.0), [-1])
    pad_size = 4 - tf.math.mod(tf.size(codes), 4)
    pad = tf.range(0.0, tf.cast(pad_size, tf.float32))
    first, second, third, fourth = tf.split(tf.concat([codes, pad], 0), 4)
    low = tf.add(first, second * 4.0)
    high = tf.add(third * 16.0, fourth * 64.0)
    return tf.cast(tf.add(low, high), tf.uint8), scaler


@tf.function
def _graph_decode(payload, scaler):
    codes = tf.cast(payload, tf.int32)
    levels = tf.concat(
        [
            tf.math.mod(codes, 4),
            tf.cast(tf.math.mod(codes / 4, 4), tf.int32),
            tf.cast(tf.math.mod(codes / 16, 4), tf.int32),
            tf.cast(tf.math.mod(codes / 64, 4), tf.int32),
        ],
        0,
    )
    levels = tf.cast(levels, tf.float32)
    levels = tf.gather(levels, tf.range(0, _ELEMENTS.value))
    return tf.subtract(levels, 1.0) * scaler


def _ours(num_workers, trits):
    @tf.function
    def encode(gradient, seed):
        scalers = custom_ops.ternary_scalers([gradient], 2.5, 0)
        payload, _ = custom_ops.ternary_encode(
            [gradient],
            scalers,
            scalers,
            tf.cast(seed, tf.int64),
            tensor_ids=[0],
            bucket_size=0,
            num_workers=num_workers,
            rank=0,
            seed=0,
            trits=trits,
        )
        return payload, scalers

    @tf.function
    def decode(payload, scalers):
        # As if all workers had sent the same.
        copies = tf.tile(payload, [num_workers]) if trits else payload
        return custom_ops.ternary_decode(
            copies,
            scalers,
            [tf.constant([_ELEMENTS.value], tf.int64)],
            [tf.float32],
            bucket_size=0,
            num_workers=num_workers,
            layout="gathered" if trits else "sum",
        )[0]

    return encode, decode


def _ms(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    tf.nest.map_structure(lambda t: tf.reshape(t, [-1])[:1].numpy(), result)
    return 1e3 * (time.perf_counter() - start), result


def main(argv):
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    size = _ELEMENTS.value
    gradient = tf.random.stateless_normal([size], [1, 2])
    ways = {"TensorFlow graph ops, 2 bits": (_graph_encode, _graph_decode)}
    ways["ours, trits, N = 2"] = _ours(2, True)
    for num_workers in (2, 8, 64):
        ways[f"ours, words, N = {num_workers}"] = _ours(num_workers, False)
    times = {name: {"encode": [], "decode": []} for name in ways}
    for i in range(_ROUNDS.value + 1):
        for name, (encode, decode) in ways.items():
            encode_ms, (payload, scaler) = _ms(encode, gradient, tf.constant(i))
            if "words" in name:
                payload *= int(name.split()[-1])
            decode_ms, decoded = _ms(decode, payload, scaler)
            levels = np.unique(decoded[:10_000].numpy())
            if len(levels) != 3 or levels[1] != 0:
                raise RuntimeError(f"{name}: no three levels: {levels}")
            if i > 0:  # the first one warms up
                times[name]["encode"].append(encode_ms)
                times[name]["decode"].append(decode_ms)
    print(
        f"{size:,} elements, {_THREADS.value} threads, {_ROUNDS.value} "
        f"interleaved rounds, {custom_ops.describe()}"
    )
    print(f"{'':30}{'encode ms':>10}{'x':>7}{'decode ms':>11}{'x':>7}")
    medians = {
        name: {k: float(np.median(v)) for k, v in of_way.items()}
        for name, of_way in times.items()
    }
    base = next(iter(medians.values()))
    for name, median in medians.items():
        print(
            f"{name:30}{median['encode']:10.1f}"
            f"{base['encode'] / median['encode']:7.1f}"
            f"{median['decode']:11.1f}{base['decode'] / median['decode']:7.1f}"
        )
    if _OUTPUT.value:
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    app.run(main)
