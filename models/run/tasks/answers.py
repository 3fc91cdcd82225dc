"""Questions whose answers are spans of a text."""

from __future__ import annotations

import keras
import numpy as np

from models import registry
from models.data.questions import question_set, score
from models.run.averaged_weights import averaged_weights
from models.run.tasks.task import Task


class Answers(Task):
    """Points at the first and the last word of the answer.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: see `question_set.load`.
      FileNotFoundError: likewise.
    """

    unit = "questions"
    test_batch = 60
    columns = (
        ("loss", "{:.4f}"),
        ("val_loss", "{:.4f}"),
        ("val_exact_match", "{:.2f}"),
        ("val_f1", "{:.2f}"),
    )

    def __init__(self, options):
        given = {} if options.d is None else {"dimension": options.d}
        questions = question_set.load(
            options.dataset,
            options.data_dir,
            options.num_questions,
            vectors=options.word_vectors,
            min_count=options.min_count,
            max_context=options.max_context,
            **given,
        )
        super().__init__(options, questions)

    def build_model(self):
        return registry.build(
            self.options.model,
            vocab_size=self.data.num_trained,
            char_vocab_size=len(self.data.vocabulary.characters),
            word_vectors=self.data.word_vectors,
            seed=self.options.seed,
            **self.given(),
        )

    def objective(self):
        return {
            "loss": {
                name: keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True
                )
                for name in ("start", "end")
            }
        }

    def validation(self, batch_size=None, rank=0, size=1):
        return None  # by Score, which needs the words

    def callbacks(self, batch_size=None, rank=0, size=1):
        return [Score(self.data, batch_size or self.test_batch, rank, size)]

    def test(self, model, batch_size=None):
        result = evaluate(model, self.data, batch_size or self.test_batch)
        baseline = ""
        if self.data.guess_rate is not None:
            baseline = f" (a guess among names: {self.data.guess_rate:.2f})"
        return result, (
            f"data         {self.data}\n"
            f"exact match  {result['exact_match']:.2f}{baseline}\n"
            f"F1           {result['f1']:.2f}"
        )

    def sample(self, batch_size=None):
        inputs, _ = next(iter(self.data.test(batch_size or self.test_batch)))
        return inputs

    def timed(self):
        return {"sample": self.sample(1), "batch_sizes": (1, 32)}

    def __str__(self):
        return str(self.data)


class Score(keras.callbacks.Callback):
    """Adds `val_loss`, `val_exact_match` and `val_f1` to the logs of an epoch.

    With averaged weights where the optimizer has them.

    Args:
      data: `QuestionSet`.
      batch_size: questions per step.
      rank: which worker's questions.
      size: number of workers.
    """

    def __init__(self, data, batch_size: int, rank: int = 0, size: int = 1):
        super().__init__()
        self._arguments = (data, batch_size, rank, size)

    def on_epoch_end(self, epoch, logs=None):
        with averaged_weights(self.model):
            found = evaluate(self.model, *self._arguments)
        logs.update({f"val_{key}": value for key, value in found.items()})


def evaluate(
    model: keras.Model, data, batch_size: int, rank: int = 0, size: int = 1
) -> dict[str, float]:
    """Loss, EM and F1 of a worker's questions of the test.

    Args:
      model: gives "start" and "end".
      data: `QuestionSet`.
      batch_size: questions per step.
      rank: which worker.
      size: number of workers.
    """
    starts, ends, losses = [], [], []
    for inputs, targets in data.test(batch_size, rank, size):
        logits = model.predict_on_batch(inputs)
        starts.extend(logits["start"])
        ends.extend(logits["end"])
        losses.extend(
            sum(_loss(logits[key], targets[key].numpy()) for key in targets)
        )
    found = score(
        data.texts(starts, ends, rank, size), data.answers(rank, size)
    )
    return {
        "loss": float(np.mean(losses)),
        "exact_match": found["exact_match"],
        "f1": found["f1"],
    }


def _loss(logits, targets):
    """-log softmax at the targets, `[batch]`."""
    logits = logits - logits.max(axis=1, keepdims=True)
    at = logits[np.arange(len(targets)), targets]
    return np.log(np.exp(logits).sum(axis=1)) - at
