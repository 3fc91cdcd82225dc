"""Tests of models/data/questions/spans.py."""

import numpy as np
import pytest

from models.data.questions import SpanBatches, Vocabulary, cloze, read_json
from models.data.questions.spans import best_span
from tests.models.data.questions.test_cloze import sentences


@pytest.fixture(scope="module")
def examples():
    return read_json(cloze(sentences(96), 20))[0]


@pytest.fixture(scope="module")
def vocabulary(examples):
    return Vocabulary.of(e.context_tokens for e in examples)


def test_arrays(examples, vocabulary):
    batches = SpanBatches(examples, vocabulary, word_width=5)
    inputs, targets = next(iter(batches.test(20)))
    longest = max(len(e.context_tokens) for e in examples)
    assert inputs["context"].shape == (20, longest)
    assert inputs["context_chars"].shape == (20, longest, 5)
    assert inputs["question"].shape[0] == 20
    for row, example in enumerate(examples):
        tokens = example.context_tokens
        words = inputs["context"][row].numpy()
        np.testing.assert_array_equal(
            words[: len(tokens)], vocabulary.word_ids(tokens)
        )
        assert not words[len(tokens) :].any()
        span = int(targets["start"][row]), int(targets["end"][row])
        assert example.text(*span) == example.answers[0]


def test_workers_share_an_epoch(examples, vocabulary):
    batches = SpanBatches(examples, vocabulary)
    seen = []
    for rank in range(2):
        data = iter(batches.train(3, rank, 2, seed=4))
        assert batches.steps_per_epoch(3, 2) == 3
        for _ in range(3):
            seen.append(next(data)[0]["context"].numpy())
    rows = np.concatenate(seen)
    # Words alone: texts of other places can be the same; the order is not.
    assert rows.shape[0] == 18
    again = next(iter(batches.train(3, 0, 2, seed=4)))[0]["context"]
    np.testing.assert_array_equal(again, seen[0])
    other = next(iter(batches.train(3, 0, 2, seed=5)))[0]["context"]
    assert (other.numpy() != seen[0]).any()


def test_shares_of_a_test_set(examples, vocabulary):
    batches = SpanBatches(examples, vocabulary, training=False)
    sizes = [
        [x["context"].shape[0] for x, _ in batches.test(6, rank, 3)]
        for rank in range(3)
    ]
    assert sizes == [[6, 1], [6, 1], [6]]


def test_limits_of_training(examples, vocabulary):
    length = len(examples[0].question_tokens)
    batches = SpanBatches(examples, vocabulary, max_context=12)
    assert batches.skipped["the answer ends behind 12 tokens"] == (
        20 - len(batches)
    )
    inputs, targets = next(iter(batches.test(50)))
    assert inputs["context"].shape[1] == 12
    assert targets["end"].numpy().max() < 12
    everything = SpanBatches(examples, vocabulary, 12, 1, training=False)
    assert len(everything) == 20
    with pytest.raises(ValueError) as error:
        SpanBatches(examples, vocabulary, max_question=length - 1)
    assert str(error.value) == (
        "Expected one question or more within the limits. Received: 20 left "
        f"out: the question has more than {length - 1} tokens (the first: "
        f"{examples[0].id})"
    )


def test_too_few_questions(examples, vocabulary):
    with pytest.raises(ValueError) as error:
        SpanBatches(examples, vocabulary).steps_per_epoch(11, 2)
    assert str(error.value) == (
        "Expected at least 22 questions: 2 workers with 11 each. Received: 20"
    )


def test_best_span_is_the_best_of_all():
    random = np.random.default_rng(0)
    for _ in range(50):
        length = random.integers(1, 8)
        start, end = random.normal(size=(2, 9))
        i, j = best_span(start, end, length)
        best = max(
            start[a] + end[b] for a in range(length) for b in range(a, length)
        )
        assert i <= j < length
        assert start[i] + end[j] == pytest.approx(best)


def test_texts_and_score(examples, vocabulary):
    batches = SpanBatches(examples, vocabulary)
    _, targets = next(iter(batches.test(20)))
    width = max(len(e.context_tokens) for e in examples)
    start = np.eye(width)[targets["start"].numpy()]
    end = np.eye(width)[targets["end"].numpy()]
    texts = batches.texts(start, end)
    assert texts == {e.id: e.answers[0] for e in examples}
    assert set(batches.answers()) == set(texts)
