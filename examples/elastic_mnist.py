r"""LeNet on MNIST with ternary gradients, on workers that come and go.

    horovodrun --gloo -np 2 --min-np 1 --max-np 4 \
        --host-discovery-script ./hosts.sh python -m examples.elastic_mnist

hosts.sh prints a line `name:slots` for each host that there is now. A worker
that is killed costs at most the last --commit_every steps; one on a host that
hosts.sh prints later joins at the next commit. Under plain horovodrun, or
without it, the same program trains too.
"""

from __future__ import annotations

import pathlib

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags

import models
import tf_terngrad as tg

flags.DEFINE_integer("epochs", 3, "Passes over the data, >= 1.", 1)
flags.DEFINE_integer("batch_size", 32, "Images of a worker's batch, >= 1.", 1)
flags.DEFINE_integer("commit_every", 50, "Steps between commits, >= 1.", 1)
flags.DEFINE_float("learning_rate", 0.01, "Of one worker, > 0.")
FLAGS = flags.FLAGS

DATA = pathlib.Path(__file__).parents[1] / "data"


def load(split: str) -> tf.data.Dataset:
    """Single examples: images `[28, 28, 1]` in [0, 1], labels."""
    images, labels = tfds.as_numpy(
        tfds.load(
            "mnist",
            split=split,
            data_dir=DATA,
            as_supervised=True,
            batch_size=-1,
        )
    )
    return tf.data.Dataset.from_tensor_slices((images / 255.0, labels)).map(
        lambda image, label: (tf.cast(image, tf.float32), label)
    )


class Report(keras.callbacks.Callback):
    """Prints a line an epoch, on the first worker."""

    def on_epoch_end(self, epoch, logs=None):
        """Prints."""
        if tg.rank() == 0:
            print(
                f"epoch {epoch + 1}: {tg.size()} workers, loss "
                f"{logs['loss']:.4f}, accuracy {logs['accuracy']:.4f}",
                flush=True,
            )


@tg.elastic.run
def train(state: tg.elastic.State, examples: tf.data.Dataset) -> None:
    """Called again, with the state of the last commit, for each new N."""
    model = state.model
    # As all that depends on N: in here.
    model.optimizer.learning_rate = FLAGS.learning_rate * tg.size()
    print(f"worker {tg.rank()} of {tg.size()}, epoch {state.epoch}", flush=True)
    while state.epoch < FLAGS.epochs:
        shuffled = examples.shuffle(
            60_000, seed=state.epoch, reshuffle_each_iteration=False
        )
        model.fit(
            state.remaining(shuffled, FLAGS.batch_size),
            initial_epoch=state.epoch,
            epochs=state.epoch + 1,
            verbose=0,
            shuffle=False,  # it is already
            callbacks=[
                tg.callbacks.ReplicaCheck(),
                tg.callbacks.MetricAverage(),
                Report(),
                tg.elastic.Commit(state, FLAGS.batch_size, FLAGS.commit_every),
            ],
        )


def main(argv: list[str]) -> None:
    """Builds, trains, tests."""
    del argv
    model = models.build(
        "lenet", input_shape=(28, 28, 1), num_classes=10, seed=0
    )
    model.compile(
        tg.DistributedOptimizer(
            keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9),
            tg.TernGrad(),
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    train(tg.elastic.State(model), load("train"))
    if tg.rank() == 0:
        _, accuracy = model.evaluate(load("test").batch(500), verbose=0)
        print(f"test accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    app.run(main)
