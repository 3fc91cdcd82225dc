"""Questions to learn from and questions to be tested with."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from models.data import order, prepared, words
from models.data.questions.cloze import cloze, guess_rate
from models.data.questions.glove import read_vectors
from models.data.questions.spans import SpanBatches
from models.data.questions.squad import Example, Skipped, read, read_json
from models.data.questions.vocabulary import Vocabulary

# Of a document that comes alone, every fifth paragraph is for the test.
_HELD_OUT = 5


class QuestionSet:
    """Questions for training and for the test, as batches for every worker.

    Batches are those of `SpanBatches`.

    Attributes:
      name: of the set.
      num_train: questions to learn from.
      num_test: questions of the test.
      vocabulary: `Vocabulary`: words whose vectors are trained, then words of
        `word_vectors`.
      num_trained: words, with padding, whose vectors are trained.
      word_vectors: float32 `[words, dimension]`, given ones; None: none.
      skipped: `Skipped`: what was left out, and why.
      guess_rate: EM of a guess, percent, where that is known, or None.
    """

    def __init__(
        self,
        name: str,
        train: Sequence[Example],
        test: Sequence[Example],
        vectors: str | pathlib.Path | None = None,
        dimension: int = 100,
        min_count: int = 1,
        max_context: int = 400,
        skipped: Skipped | None = None,
    ):
        """Counts words, reads their vectors, encodes questions.

        Args:
          name: of the set.
          train: to learn from.
          test: to be tested with.
          vectors: GloVe file; None: all vectors are trained.
          dimension: of its vectors.
          min_count: words, without a given vector, and characters that are
            rarer in training are unknown.
          max_context: see `SpanBatches`.
          skipped: what was left out before.

        Raises:
          ValueError: no question is left, or the file of vectors is not as it
            should be.
        """
        self.name = name
        self.guess_rate = None
        # Contexts once each, though several questions have them.
        texts = [list(t) for t in dict.fromkeys(e.context_tokens for e in train)]
        texts += [e.question_tokens for e in train]
        self.vocabulary = Vocabulary.of(texts, min_count, min_count)
        self.num_trained = len(self.vocabulary.words)
        self.word_vectors = None
        if vectors is not None:
            self._add_vectors([*train, *test], vectors, dimension)
        self._train = SpanBatches(train, self.vocabulary, max_context)
        self._test = SpanBatches(test, self.vocabulary, training=False)
        self.num_train, self.num_test = len(self._train), len(self._test)
        self.skipped = skipped or Skipped()
        for reason, count in self._train.skipped.items():
            self.skipped[reason] += count
            self.skipped.examples.setdefault(
                reason, self._train.skipped.examples[reason]
            )

    def _add_vectors(self, examples, path, dimension):
        """Puts words that have a given vector behind those that have none."""
        seen = {
            word.lower()
            for e in examples
            for word in (*e.context_tokens, *e.question_tokens)
        }
        known = sorted(seen)
        found, has = read_vectors(path, known, dimension)
        given = [word for word, there in zip(known, has, strict=True) if there]
        trained = [
            word for word in self.vocabulary.words[2:] if word not in set(given)
        ]
        characters = self.vocabulary.characters[2:]
        self.vocabulary = Vocabulary([*trained, *given], characters)
        self.num_trained = 2 + len(trained)
        self.word_vectors = found[has]

    def steps_per_epoch(self, batch_size: int, size: int = 1) -> int:
        """See `SpanBatches.steps_per_epoch`."""
        return self._train.steps_per_epoch(batch_size, size)

    def test_examples(self, rank: int = 0, size: int = 1) -> int:
        """Returns how many questions of the test this worker has."""
        order.check_worker(rank, size)
        return len(range(rank, self.num_test, size))

    def train(self, *args, **kwargs) -> tf.data.Dataset:
        """See `SpanBatches.train`."""
        return self._train.train(*args, **kwargs)

    def test(self, *args, **kwargs) -> tf.data.Dataset:
        """See `SpanBatches.test`."""
        return self._test.test(*args, **kwargs)

    def texts(self, start, end, rank: int = 0, size: int = 1) -> dict:
        """See `SpanBatches.texts`."""
        return self._test.texts(start, end, rank, size)

    def answers(self, rank: int = 0, size: int = 1) -> dict:
        """See `SpanBatches.answers`."""
        return self._test.answers(rank, size)

    def __str__(self):
        words_of = f"{self.num_trained:,} words"
        if self.word_vectors is not None:
            words_of += f" and {len(self.word_vectors):,} with given vectors"
        return (
            f"{self.name}, {self.num_train:,} training and {self.num_test:,} "
            f"test questions, {words_of}; {self.skipped}"
        )


def load(
    name: str,
    data_dir: str | pathlib.Path | None = None,
    num_questions: int = 6000,
    **options,
) -> QuestionSet:
    """Opens a set of questions.

    Args:
      name: "squad": `data_dir` is a folder with train*.json and dev*.json, a
        file or a folder with one file in SQuAD v1.1's format (every fifth
        paragraph is for the test then), or TFDS's data folder with squad
        prepared. "cloze": questions made from the text `data_dir`, see
        `models.data.questions.cloze`.
      data_dir: see above; None, for "cloze": the King James Bible.
      num_questions: of "cloze", in all.
      **options: of `QuestionSet`.

    Raises:
      FileNotFoundError: there are no questions.
      ValueError: another name; or what `read` and `QuestionSet` refuse.
    """
    if name == "cloze":
        document = cloze(words.lines(data_dir), num_questions)
        train, test, skipped = _held_out(document, "cloze")
        found = QuestionSet("cloze", train, test, skipped=skipped, **options)
        found.guess_rate = guess_rate(document)
        return found
    if name != "squad":
        raise ValueError(
            "Invalid value for argument name. Expected 'squad' or 'cloze'. "
            f"Received: name={name!r}"
        )
    train, test, skipped = _squad(data_dir)
    return QuestionSet("squad", train, test, skipped=skipped, **options)


def _squad(data_dir):
    if data_dir is None:
        raise ValueError(
            "Dataset 'squad' needs data_dir: a folder with train*.json and "
            "dev*.json, or a file in SQuAD v1.1's format. Received: "
            "data_dir=None"
        )
    path = pathlib.Path(data_dir)
    if path.is_file():
        return _alone(path)
    found = {
        split: sorted(path.glob(f"{split}*.json")) for split in ("train", "dev")
    }
    if all(found.values()):
        train, skipped = read(found["train"][0])
        test, more = read(found["dev"][0])
        return train, test, _sum(skipped, more)
    alone = sorted(path.glob("*.json"))
    if len(alone) == 1:
        return _alone(alone[0])
    if (path / "squad").is_dir():
        return _prepared(path)
    raise FileNotFoundError(
        "No questions. Expected train*.json and dev*.json, one .json file, or "
        f"TFDS's squad. Looked in: {path}"
    )


def _alone(path):
    read(path)  # its errors have the file's name and the line
    document = json.loads(path.read_text(encoding="utf-8"))
    return _held_out(document, str(path))


def _held_out(document, name):
    """Every fifth paragraph for the test."""
    paragraphs = [p for a in document["data"] for p in a["paragraphs"]]
    parts = []
    for test in (False, True):
        chosen = [
            p
            for i, p in enumerate(paragraphs)
            if (i % _HELD_OUT == _HELD_OUT - 1) == test
        ]
        parts.append(read_json({"data": [{"paragraphs": chosen}]}, name))
    (train, skipped), (test, more) = parts
    return train, test, _sum(skipped, more)


def _prepared(path):
    """TFDS's squad."""
    builder = tfds.builder_from_directory(prepared.find("squad", path))
    parts = []
    for split in ("train", "validation"):
        paragraphs: dict[str, list] = {}
        for entry in tfds.as_numpy(builder.as_dataset(split=split)):
            answers = [
                {"text": text.decode(), "answer_start": int(start)}
                for text, start in zip(
                    np.atleast_1d(entry["answers"]["text"]),
                    np.atleast_1d(entry["answers"]["answer_start"]),
                    strict=True,
                )
            ]
            paragraphs.setdefault(entry["context"].decode(), []).append(
                {
                    "id": entry["id"].decode(),
                    "question": entry["question"].decode(),
                    "answers": answers,
                }
            )
        document = [{"context": c, "qas": q} for c, q in paragraphs.items()]
        parts.append(read_json({"data": [{"paragraphs": document}]}, "squad"))
    (train, skipped), (test, more) = parts
    return train, test, _sum(skipped, more)


def _sum(first: Skipped, second: Skipped) -> Skipped:
    for reason, count in second.items():
        first[reason] += count
        first.examples.setdefault(reason, second.examples[reason])
    return first
