"""Batches of questions for a network that points at spans."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from models.data.questions.squad import Example, Skipped
from models.data.questions.vocabulary import Vocabulary


class SpanBatches:
    """Questions as arrays.

    Inputs are int32 and padded with 0: "context" `[batch, T]`, "context_chars"
    `[batch, T, W]`, "question" `[batch, J]`, "question_chars" `[batch, J, W]`;
    targets "start" and "end" `[batch]`,
    the first and the last token of the answer. T and J are the longest of the
    whole set, so that a graph is traced once.

    Attributes:
      examples: those that are used.
      skipped: `Skipped`: those that are too long.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocabulary: Vocabulary,
        max_context: int = 400,
        max_question: int = 30,
        word_width: int = 16,
        training: bool = True,
    ):
        """Encodes questions.

        Args:
          examples: what `read` returned.
          vocabulary: of the training set.
          max_context: in training, questions whose answer ends behind so many
            tokens are left out, and contexts are cut there; in a test nothing
            is.
          max_question: in training, longer questions are left out.
          word_width: characters of a word that are read.
          training: see above.

        Raises:
          ValueError: no question is left.
        """
        self.skipped = Skipped()
        self.examples = []
        for example in examples:
            if training and len(example.question_tokens) > max_question:
                reason = f"the question has more than {max_question} tokens"
            elif training and example.spans[0][1] >= max_context:
                reason = f"the answer ends behind {max_context} tokens"
            else:
                self.examples.append(example)
                continue
            self.skipped.note(reason, example.id)
        if not self.examples:
            raise ValueError(
                "Expected one question or more within the limits. Received: "
                f"{self.skipped}"
            )
        longest = max(len(e.context_tokens) for e in self.examples)
        self._max_context = min(longest, max_context) if training else longest
        self._vocabulary, self._width = vocabulary, word_width
        self._arrays = self._encode()

    def __len__(self):
        return len(self.examples)

    def steps_per_epoch(self, batch_size: int, size: int = 1) -> int:
        """Steps of a worker, the same on all.

        Raises:
          ValueError: not one step is possible.
        """
        steps = len(self) // (batch_size * size)
        if not steps:
            raise ValueError(
                f"Expected at least {batch_size * size} questions: {size} "
                f"workers with {batch_size} each. Received: {len(self)}"
            )
        return steps

    def train(
        self,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        seed: int = 0,
        start_epoch: int = 0,
        num_ranks: int = 1,
    ) -> tf.data.Dataset:
        """Endless batches of a worker: each epoch in another order.

        Args:
          batch_size: of a worker.
          rank: number of the worker.
          size: number of workers.
          seed: of the order, the same on all workers.
          start_epoch: epoch of the first batch, from 0.
          num_ranks: a batch is those of this many workers, `rank` and the ones
            after it.
        """
        steps = self.steps_per_epoch(batch_size, size)

        def indices():
            for epoch in itertools.count(start_epoch):
                order = np.random.default_rng((seed, epoch)).permutation(
                    len(self)
                )
                for step in range(steps):
                    begin = (step * size + rank) * batch_size
                    yield order[begin : begin + num_ranks * batch_size]

        return self._dataset(indices, num_ranks * batch_size)

    def test(
        self, batch_size: int, rank: int = 0, size: int = 1
    ) -> tf.data.Dataset:
        """A worker's share of all questions once, in order."""
        own = np.arange(rank, len(self), size)

        def indices():
            for begin in range(0, len(own), batch_size):
                yield own[begin : begin + batch_size]

        return self._dataset(indices, None)

    def texts(
        self, start, end, rank: int = 0, size: int = 1
    ) -> dict[str, str]:
        """Answers of a network: id -> text of the most probable span.

        Args:
          start: float `[questions, T]`: logits of the first token, for the
            questions of `test(..., rank, size)`.
          end: likewise of the last.
          rank: which worker's questions.
          size: number of workers.
        """
        return {
            example.id: example.text(
                *best_span(s, e, len(example.context_tokens))
            )
            for example, s, e in zip(
                self.examples[rank::size], start, end, strict=True
            )
        }

    def answers(
        self, rank: int = 0, size: int = 1
    ) -> dict[str, tuple[str, ...]]:
        """Id -> right texts."""
        return {e.id: e.answers for e in self.examples[rank::size]}

    def _dataset(self, indices, batch_size):
        signature = tuple(
            {
                key: tf.TensorSpec((batch_size, *array.shape[1:]), array.dtype)
                for key, array in part.items()
            }
            for part in self._arrays
        )

        def batches():
            for rows in indices():
                yield tuple(
                    {key: array[rows] for key, array in part.items()}
                    for part in self._arrays
                )

        return tf.data.Dataset.from_generator(
            batches, output_signature=signature
        ).prefetch(2)

    def _encode(self) -> tuple[Mapping, Mapping]:
        longest = max(len(e.question_tokens) for e in self.examples)
        inputs = {}
        for key, length in (
            ("context", self._max_context),
            ("question", longest),
        ):
            words = np.zeros((len(self), length), np.int32)
            characters = np.zeros((len(self), length, self._width), np.int32)
            for row, example in enumerate(self.examples):
                tokens = getattr(example, f"{key}_tokens")[:length]
                words[row, : len(tokens)] = self._vocabulary.word_ids(tokens)
                characters[row, : len(tokens)] = self._vocabulary.character_ids(
                    tokens, self._width
                )
            inputs[key] = words
            inputs[f"{key}_chars"] = characters
        spans = np.array([e.spans[0] for e in self.examples], np.int32)
        return inputs, {"start": spans[:, 0], "end": spans[:, 1]}


def best_span(start, end, length: int) -> tuple[int, int]:
    """The span i <= j with the largest start[i] + end[j], of logits.

    Args:
      start: float `[T]`.
      end: float `[T]`.
      length: only tokens before it count.

    Returns:
      (i, j).

    >>> best_span([0.0, 3.0, 1.0], [9.0, 0.0, 2.0], 3)
    (0, 0)
    >>> best_span([0.0, 3.0, 1.0], [4.0, 0.0, 2.0], 3)
    (1, 2)

    Reference: Seo et al., Bidirectional attention flow for machine
    comprehension, ICLR 2017, section 3.
    """
    start, end = np.asarray(start)[:length], np.asarray(end)[:length]
    best_start = np.maximum.accumulate(start)
    j = int(np.argmax(best_start + end))
    return int(np.argmax(start[: j + 1])), j
