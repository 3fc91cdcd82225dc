"""Run by test_elastic.py in every worker: one is killed, one joins later.

    check_elastic.py FOLDER

Each process writes FOLDER/<host>.jsonl, a line a step and one at the end. In
FOLDER/hosts.txt are the hosts that horovodrun's discovery script tells.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import tf_terngrad as tg

BATCH_SIZE = 32
COMMIT_EVERY = 5
KILLED_HOST, KILLED_AT = "127.0.1", 23  # the last commit is that of step 20
ADDED_HOST, ADDED_AT = "127.1", 40
MORE_EPOCHS = 3  # with the worker that joined

FOLDER = pathlib.Path(sys.argv[-1])
HOST = os.environ.get("HOROVOD_HOSTNAME")


def _model():
    keras.utils.set_random_seed(len(HOST))  # others on each worker
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(4),
        ]
    )


def _examples(epoch):
    """The same on all workers: the largest of four sums is the class."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1920, 16)).astype(np.float32)
    labels = images.reshape(-1, 4, 4).sum(axis=2).argmax(axis=1)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    return dataset.shuffle(1920, seed=epoch, reshuffle_each_iteration=False)


class _Log(keras.callbacks.Callback):
    """Writes each step; kills this worker, or adds one, when it is time."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def on_epoch_begin(self, epoch, logs=None):
        self.sum = 0.0

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        total = float(logs["loss"]) * (batch + 1)  # logs are running means
        self._write(step=step, loss=total - self.sum)
        self.sum = total
        if HOST == KILLED_HOST and step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        hosts = FOLDER / "hosts.txt"
        if tg.rank() == 0 and tg.size() == 2 and step == ADDED_AT:
            hosts.write_text(hosts.read_text() + f"{ADDED_HOST}:1\n")

    def _write(self, **line):
        line |= {"rank": tg.rank(), "size": tg.size()}
        print(json.dumps(line), file=self.file, flush=True)


def _check_tape():
    """Made here, so its number, which names the collectives, begins anew."""
    compression = tg.TernGrad(clip_factor=None, bucket_size=1)
    variable = tf.Variable([1.0, 1.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable)
    tape = tg.DistributedGradientTape(tape, compression)
    assert list(tape.gradient(loss, [variable])[0]) == [1.0, 1.0]


@tg.elastic.run
def train(state, file):
    if tg.size() not in state.sizes[-1:]:
        state.sizes.append(tg.size())
    if state.sizes == [3, 2, 3] and state.end is None:
        state.end = state.epoch + MORE_EPOCHS
    _check_tape()
    # One that joins begins with another rate, that of `main`.
    state.model.optimizer.learning_rate = 0.007 * tg.size()
    while state.end is None or state.epoch < state.end:
        state.model.fit(
            state.remaining(_examples(state.epoch), BATCH_SIZE),
            initial_epoch=state.epoch,
            epochs=state.epoch + 1,
            verbose=0,
            callbacks=[
                tg.callbacks.ReplicaCheck(),
                _Log(file),
                tg.elastic.Commit(state, BATCH_SIZE, COMMIT_EVERY),
            ],
        )
    return "done"


def main():
    model = _model()
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(0.02, momentum=0.9),
        tg.TernGrad(exchange="alltoall", error_feedback=True),
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    state = tg.elastic.State(model, sizes=[], end=None)
    with (FOLDER / f"{HOST}.jsonl").open("a") as file:
        assert train(state, file) == "done"
        digest = hashlib.sha256()
        for variable in model.trainable_variables + optimizer.variables:
            digest.update(keras.ops.convert_to_numpy(variable).tobytes())
        last = {
            "digest": digest.hexdigest(),
            "sizes": state.sizes,
            "steps": int(optimizer.iterations),
            "exchanges": int(optimizer.exchange_step),
        }
        print(json.dumps(last), file=file)


if __name__ == "__main__":
    main()
