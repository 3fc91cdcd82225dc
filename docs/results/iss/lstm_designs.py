"""PTB's LSTM in other forms, beside the Keras layers of latency_ptb_lstm*.log.

    PYTHONPATH=. python docs/results/iss/lstm_designs.py > \
      docs/results/iss/lstm_designs.log

Not part of the package: what was tried where removing units gains less than the
talk's ratio. "hoisted": inputs are multiplied by the kernel in one product of
300 rows before the loop, which has only the recurrent product of 10 rows then.
Below: the products alone.
"""

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend

import models
from tf_ssl.measure.latency import in_turn, inference
from tf_ssl.measure.machine import machine

STEPS, ROWS = 30, 10
SIZES = {"dense": None, "373, 315": (373, 315), "381, 535": (381, 535)}
PRODUCTS = [
    *[(10, 3000, 6000), (10, 1500, 1492), (10, 373, 1492), (10, 315, 1260)],
    *[(300, 1500, 1492), (300, 1500, 10000), (300, 315, 10000)],
]


class Hoisted(keras.layers.LSTM):
    """Without masks and dropout."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        cell = self.cell
        inputs = keras.ops.matmul(sequences, cell.kernel) + cell.bias

        def step(x, states):
            h, c = states
            z = x + keras.ops.matmul(h, cell.recurrent_kernel)
            c, o = cell._compute_carry_and_output_fused(
                keras.ops.split(z, 4, axis=1), c
            )
            h = o * cell.activation(c)
            return h, [h, c]

        return backend.rnn(
            step,
            inputs,
            list(initial_state),
            unroll=self.unroll,
            input_length=STEPS,
            return_all_outputs=True,
        )


def changed(model, kind, unroll):
    """A copy whose LSTM layers are of that kind."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.LSTM):
            return kind.from_config(config | {"unroll": unroll})
        return type(layer).from_config(config)

    inputs = keras.Input((STEPS,), ROWS, dtype="int32")
    copy = keras.models.clone_model(model, inputs, clone)
    copy.set_weights(model.get_weights())
    return copy


def products(m, k, n):
    """A function of so many products of these sizes, and their number."""
    count = max(1, 10**9 // (m * k * n))
    a = [tf.random.normal((m, k)) for _ in range(count)]
    b = tf.random.normal((k, n))
    return tf.function(lambda: [tf.matmul(x, b) for x in a]), count


def main():
    """Prints both tables."""
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    words = np.random.default_rng(0).integers(0, 10_000, (ROWS, STEPS))
    runs = {}
    for name, hidden in SIZES.items():
        model = models.build(
            "ptb_lstm", seed=0, **({"hidden": hidden} if hidden else {})
        )
        for form, kind, unroll in (
            ("Keras", keras.layers.LSTM, False),
            ("hoisted", Hoisted, False),
            ("hoisted, unrolled", Hoisted, True),
        ):
            copy = changed(model, kind, unroll)
            np.testing.assert_allclose(copy(words), model(words), atol=1e-5)
            for jit in (False, True):
                key = name, form + (", XLA" if jit else "")
                runs[key] = inference(copy, words, jit)
    times = in_turn(runs, 60.0)
    print(f"{'units':10}{'form':26}{'ms':>8}{'spread':>8}", end="")
    print(f"{'/ Keras dense':>15}{'/ same form dense':>19}")
    for (name, form), one in times.items():
        keras_dense = times["dense", "Keras"].median_ms / one.median_ms
        same = times["dense", form].median_ms / one.median_ms
        print(
            f"{name:10}{form:26}{one.median_ms:8.1f}{one.spread_ms:8.1f}"
            f"{keras_dense:14.2f}x{same:18.2f}x"
        )
    runs = {sizes: products(*sizes) for sizes in PRODUCTS}
    times = in_turn({sizes: run for sizes, (run, _) in runs.items()}, 20.0)
    for m, k, n in PRODUCTS:
        ms = times[m, k, n].median_ms / runs[m, k, n][1]
        print(
            f"[{m}, {k}] x [{k}, {n}]: {ms:.3f} ms, "
            f"{2 * m * k * n / ms / 1e6:.0f} GFLOP/s, weights of "
            f"{4 * k * n / 1e6:.1f} MB at {4 * k * n / ms / 1e6:.1f} GB/s"
        )


if __name__ == "__main__":
    main()
