"""Run by test_parallel.py in every worker: steps for the timeline to count."""

import sys
import time

import keras
import numpy as np
import tensorflow as tf

import tf_terngrad as tg

NUM_STEPS = 5


def main(kind):
    options = {
        "ternary": dict(compression=tg.TernGrad()),
        "exempt": dict(compression=tg.TernGrad(exempt=["*1", "*2"])),
        "sparse": dict(compression=tg.TernGrad()),
        "groups": dict(compression=tg.TernGrad(), groups=3),
        "allgather": dict(compression=tg.TernGrad(exchange="allgather")),
        "alltoall": dict(compression=tg.TernGrad(exchange="alltoall")),
    }[kind]
    variables = [
        keras.Variable(np.zeros((40, i + 1), "float32"), name=f"v{i}")
        for i in range(9)
    ]
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(0.1), name=f"of_{kind}", **options
    )

    @tf.function
    def step(x):
        gradients = [tf.fill(v.shape, x) for v in variables]
        if kind == "sparse":
            gradients[-1] = tf.IndexedSlices(
                tf.fill([2, 9], x), tf.constant([1, 3]), tf.constant([40, 9])
            )
        optimizer.apply(gradients, variables)

    for i in range(NUM_STEPS):
        step(tf.constant(float(i + 1)))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(name)
    time.sleep(2)  # a thread of Horovod's own writes the timeline
