"""Questions made from any text: a sentence with a gap."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Sequence

from models.data.questions.tokens import tokenize

GAP = "@gap"

_ENDS = frozenset(".!?:;")


def cloze(
    sentences: Sequence[str],
    num_questions: int,
    seed: int = 0,
    sentences_per_context: int = 4,
    max_context_tokens: int = 150,
    min_names: int = 3,
) -> dict:
    """Makes questions whose answers are names, in SQuAD's format.

    A context is a run of sentences that has several names; a name is a word
    with a capital letter, also inside sentences, that the text nowhere has
    without one. The question
    is one of the context's sentences, from which a name that it has once has
    become "@gap". So it can be answered by finding the sentence again: a task
    for attention, with no knowledge of the world. Contexts do not overlap.

    Args:
      sentences: of a text, in order.
      num_questions: to make; one a context.
      seed: chooses contexts' gaps.
      sentences_per_context: in a row.
      max_context_tokens: longer contexts are left out.
      min_names: different names that a context has at least: with n names a
        guess among them is right once in n times.

    Returns:
      A document as SQuAD's, all in one article.

    Raises:
      ValueError: the text is too short for so many questions; the message has
        the number that it gives.
    """
    tokens = [[t for t, _, _ in tokenize(s)] for s in sentences]
    names = _names(tokens)
    generator = random.Random(seed)
    paragraphs = []
    for begin in range(
        0, len(sentences) - sentences_per_context + 1, sentences_per_context
    ):
        if len(paragraphs) == num_questions:
            break
        rows = range(begin, begin + sentences_per_context)
        if sum(len(tokens[r]) for r in rows) > max_context_tokens:
            continue
        there = {t for r in rows for t in tokens[r] if t in names}
        gaps = [
            (r, token)
            for r in rows
            for token, count in collections.Counter(tokens[r]).items()
            if token in there and count == 1 and len(tokens[r]) >= 5
        ]
        if len(there) < min_names or not gaps:
            continue
        row, answer = generator.choice(gaps)
        context = " ".join(sentences[r] for r in rows)
        offset = sum(len(sentences[r]) + 1 for r in range(begin, row))
        start = next(
            offset + begin_of
            for token, begin_of, _ in tokenize(sentences[row])
            if token == answer
        )
        place = start - offset
        sentence = sentences[row]
        paragraphs.append(
            {
                "context": context,
                "qas": [
                    {
                        "id": f"cloze-{begin}",
                        "question": sentence[:place]
                        + GAP
                        + sentence[place + len(answer) :],
                        "answers": [{"text": answer, "answer_start": start}],
                    }
                ],
            }
        )
    if len(paragraphs) < num_questions:
        raise ValueError(
            "Invalid value for argument sentences. Expected a text with names "
            f"for {num_questions} questions. Received: {len(sentences)} "
            f"sentences, which give {len(paragraphs)}"
        )
    return {
        "version": "1.1",
        "data": [{"title": "cloze", "paragraphs": paragraphs}],
    }


def guess_rate(document: dict) -> float:
    """Expected EM, percent, of a guess among a context's names.

    The trivial baseline of `cloze`'s questions.

    Args:
      document: what `cloze` returned.
    """
    paragraphs = [p for a in document["data"] for p in a["paragraphs"]]
    tokens = [[t for t, _, _ in tokenize(p["context"])] for p in paragraphs]
    names = _names(tokens)
    shares = [1 / max(1, len({t for t in row if t in names})) for row in tokens]
    return 100 * sum(shares) / len(shares)


def _names(tokens) -> set[str]:
    """Capitalized words inside sentences that nowhere are in lower case."""
    lower = {t for row in tokens for t in row if t[:1].islower()}
    return {
        t
        for row in tokens
        for before, t in itertools.pairwise(row)
        if before not in _ENDS
        and t[:1].isupper()
        and t[1:].islower()
        and t.lower() not in lower
    }
