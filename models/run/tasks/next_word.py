"""Language models: the next word of a text."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from models import registry
from models.data import words
from models.rebatch import rebatch, reset_states
from models.run.tasks.task import Task

LOSSES = ("sum", "mean")


class NextWord(Task):
    """Predicts each word of a text from those before it.

    The state of the network goes from batch to batch and is zero where an epoch
    or a test begins. Perplexity is exp of the mean cross-entropy, without any
    penalty that the loss has.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: see `models.data.words.load`; or virtual workers are asked
        for.
      FileNotFoundError: see there.
    """

    unit = "words"
    test_batch = 1
    columns = (
        ("perplexity", "{:.2f}"),
        ("val_perplexity", "{:.2f}"),
    )

    def __init__(self, options):
        if options.virtual_workers > 1:
            raise ValueError(
                "Invalid value for flag --virtual_workers. Expected 1 for "
                f"--model={options.model}, whose state goes from batch to "
                f"batch. Received: {options.virtual_workers}"
            )
        text = words.load(
            options.data_dir,
            options.vocab_size,
            options.num_steps,
            options.max_words,
        )
        super().__init__(options, text)
        self.units_per_example = text.num_steps
        # The papers' strengths and rates belong to the sum over steps.
        if options.loss_over_steps == "mean":
            self.loss_scale = 1 / text.num_steps

    def build_model(self):
        return registry.build(
            self.options.model,
            vocab_size=len(self.data.vocabulary),
            stateful=True,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            **self.given(),
        )

    def objective(self):
        mean = self.options.loss_over_steps == "mean"
        return {
            "loss": CrossEntropy(scale=1 if mean else self.data.num_steps),
            "metrics": [
                keras.metrics.SparseCategoricalCrossentropy(
                    name="cross_entropy", from_logits=True
                )
            ],
        }

    def validation(self, batch_size=None, rank=0, size=1):
        # The states have the rows of training.
        return self.data.test(self.options.batch_size, rank, size)

    def callbacks(self, batch_size=None, rank=0, size=1):
        return [ResetStates()]

    def derived_metrics(self):
        return [Perplexity()]

    def for_inference(self, model):
        return rebatch(model, None, stateful=False)

    def test(self, model, batch_size=None):
        rows = batch_size or self.test_batch
        carrying = rebatch(model, rows, stateful=True)
        result = {
            f"{split}_perplexity": math.exp(
                _cross_entropy(carrying, self.data.batches(split, rows))
            )
            for split in ("valid", "test")
        }
        text = f"data        {self.data}\n"
        text += (
            "perplexity  validation "
            f"{result['valid_perplexity']:.2f}, test "
            f"{result['test_perplexity']:.2f} ({rows} row(s), state carried "
            "over)"
        )
        return result, text

    def sample(self, batch_size=None):
        return self._inputs(batch_size or self.test_batch, self.data.num_steps)

    def timed(self):
        # The talk's: ten sentences of 30 words; and one.
        return {"sample": self._inputs(10, 30), "batch_sizes": (10, 1)}

    def _inputs(self, rows, steps):
        text = np.resize(self.data.ids("test"), rows * steps)
        return text.reshape(rows, steps)

    def __str__(self):
        return str(self.data)


def _cross_entropy(model, batches) -> float:
    """Mean over all words, of batches that may differ in length."""
    reset_states(model)

    @tf.function(autograph=False, reduce_retracing=True)
    def total(inputs, targets):
        return keras.ops.sum(
            keras.ops.sparse_categorical_crossentropy(
                targets, model(inputs, training=False), from_logits=True
            )
        )

    found = [(float(total(x, y)), tf.size(y).numpy()) for x, y in batches]
    nats, words_of = zip(*found, strict=True)
    return sum(nats) / sum(words_of)


@keras.saving.register_keras_serializable(package="models")
class CrossEntropy(keras.losses.Loss):
    """Mean over rows and steps of -log p(next word), times a scale.

    With the number of steps as scale it is the papers' loss: the sum over the
    steps of a row, the mean over rows.

    Args:
      scale: factor.
      name: of the loss.
    """

    def __init__(self, scale: float = 1.0, name: str = "cross_entropy"):
        super().__init__(name=name)
        self.scale = scale

    def call(self, y_true, y_pred):
        return self.scale * keras.ops.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )

    def get_config(self):
        return {"scale": self.scale, "name": self.name}


class ResetStates(keras.callbacks.Callback):
    """Sets states to zero where an epoch or a test begins."""

    def on_epoch_begin(self, epoch, logs=None):
        reset_states(self.model)

    def on_test_begin(self, logs=None):
        reset_states(self.model)


class Perplexity(keras.callbacks.Callback):
    """Adds exp(cross-entropy) to the logs: `perplexity`, `val_perplexity`.

    Put it after the average over workers: an average of perplexities is none.
    """

    def on_train_batch_end(self, batch, logs=None):
        self._add(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._add(logs)

    def _add(self, logs):
        for prefix in ("", "val_"):
            value = (logs or {}).get(f"{prefix}cross_entropy")
            if value is not None:
                # exp(700) is the largest that a float holds.
                logs[f"{prefix}perplexity"] = math.exp(min(float(value), 700))
