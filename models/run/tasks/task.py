"""What train.py and eval.py ask of a task."""

from __future__ import annotations

import abc

import keras

# Flags that are arguments of a model's own function, where they are given.
MODEL_FLAGS = (
    *("dropout", "shortcut"),
    *("size", "hidden", "embedding"),
    *("width", "depth", "word_dropout", "input_dropout"),
    *("recurrent_dropout", "output_dropout"),
    *("d", "contextual", "modelling1", "modelling2", "output"),
)


class Task(abc.ABC):
    """A data set, and how models of one kind learn from it.

    Attributes:
      data: the data set: has `name`, `num_train`, `num_test` and the methods
        of `models.data.ImageClassification`.
      unit: what examples are called, and what the rate counts.
      units_per_example: how many of them an example of a batch is.
      columns: (metric, format) of a line of progress.
      test_batch: examples per step of a test, by default.
      loss_scale: what the loss is multiplied with, compared to the papers'.
    """

    unit = "images"
    units_per_example = 1
    test_batch = 500
    loss_scale = 1.0
    columns: tuple[tuple[str, str], ...] = ()

    def __init__(self, options, data):
        self.options = options
        self.data = data

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """Builds the model, with new weights."""

    def network(self, model: keras.Model) -> keras.Model:
        """What of a trained model is saved and tested."""
        return model

    @abc.abstractmethod
    def objective(self) -> dict:
        """Arguments of `compile`: loss and metrics."""

    def validation(
        self, batch_size: int | None = None, rank: int = 0, size: int = 1
    ):
        """What `fit` evaluates after each epoch; None: `callbacks` do it."""
        return self.data.test(batch_size or self.test_batch, rank, size)

    def callbacks(
        self, batch_size: int | None = None, rank: int = 0, size: int = 1
    ) -> list[keras.callbacks.Callback]:
        """What else an epoch needs, before workers average their metrics."""
        del batch_size, rank, size
        return []

    def derived_metrics(self) -> list[keras.callbacks.Callback]:
        """What is computed from averages over workers."""
        return []

    def for_inference(self, model: keras.Model) -> keras.Model:
        """The model for any batch, that keeps nothing from batch to batch."""
        return model

    @abc.abstractmethod
    def test(
        self, model: keras.Model, batch_size: int | None = None
    ) -> tuple[dict[str, float], str]:
        """Tests a trained model.

        Args:
          model: from `for_inference`, or made smaller.
          batch_size: examples per step; None: the task's own.

        Returns:
          Metrics, and lines that say what was tested and what came out.
        """

    def timed(self) -> dict:
        """Arguments for `tf_ssl.measure_latency` and `compare`."""
        return {}

    @abc.abstractmethod
    def sample(self, batch_size: int | None = None):
        """Inputs of one step of a test."""

    @abc.abstractmethod
    def __str__(self):
        """The data set's name and sizes."""

    def given(self) -> dict:
        """The model's options among the flags, those that have a value."""
        values = {name: self.options[name].value for name in MODEL_FLAGS}
        return {
            name: tuple(map(int, value)) if isinstance(value, list) else value
            for name, value in values.items()
            if value not in (None, [])
        }
