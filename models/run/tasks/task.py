"""What train.py and eval.py ask of a task."""

from __future__ import annotations

import abc

import keras


class Task(abc.ABC):
    """A data set, and how models of one kind learn from it.

    Attributes:
      data: the data set: has `name`, `num_train`, `num_test` and the methods
        of `models.data.ImageClassification`.
      unit: what examples are called, and what the rate counts.
      units_per_example: how many of them an example of a batch is.
      columns: (metric, format) of a line of progress.
    """

    unit = "images"
    units_per_example = 1
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

    def validation(self, batch_size: int, rank: int = 0, size: int = 1):
        """What `fit` evaluates after each epoch; None: `callbacks` do it."""
        return self.data.test(batch_size, rank, size)

    def callbacks(
        self, batch_size: int, rank: int = 0, size: int = 1
    ) -> list[keras.callbacks.Callback]:
        """What else an epoch needs, before workers average their metrics."""
        del batch_size, rank, size
        return []

    @abc.abstractmethod
    def test(
        self, model: keras.Model, batch_size: int
    ) -> tuple[dict[str, float], str]:
        """Tests a trained model.

        Args:
          model: Functional, from `build_model` or made smaller.
          batch_size: examples per step.

        Returns:
          Metrics, and lines that say what was tested and what came out.
        """

    def sample(self, batch_size: int):
        """Inputs of one step of a test."""
        inputs, _ = next(iter(self.data.test(batch_size)))
        return inputs

    def given(self, *names: str) -> dict:
        """The model's options among the flags, those that have a value."""
        return {
            name: self.options[name].value
            for name in names
            if self.options[name].value is not None
        }
