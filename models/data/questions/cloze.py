"""Questions made from any text: a sentence with a gap."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Sequence

import numpy as np

from models.data.questions.tokens import tokenize

GAP = "@gap"

_ENDS = frozenset(".!?:;")


def cloze(
    sentences: Sequence[str],
    num_questions: int,
    seed: int = 0,
    sentences_per_context: int = 4,
    max_context_tokens: int = 150,
    max_question_tokens: int = 30,
    min_names: int = 3,
) -> dict:
    """Makes questions whose answers are names, in SQuAD's format.

    A context is a run of sentences that has several names; a name is a word
    with a capital letter, also inside sentences, that the text nowhere has
    without one. A question is one of the context's sentences, from which a name
    that it has once has become "@gap". So it can be answered by finding the
    sentence again: a task for attention, with no knowledge of the world.
    Contexts do not overlap. Each gets a question before any gets a second one.

    Args:
      sentences: of a text, in order.
      num_questions: to make.
      seed: chooses contexts' gaps.
      sentences_per_context: in a row.
      max_context_tokens: longer contexts are left out.
      max_question_tokens: no gaps are in longer sentences.
      min_names: different names that a context has at least: with n names a
        guess among them is right once in n times.

    Returns:
      A document as SQuAD's, all in one article; a paragraph a context.

    Raises:
      ValueError: the text is too short for so many questions; the message has
        the number that it gives.
    """
    tokens = [[t for t, _, _ in tokenize(s)] for s in sentences]
    names = _names(tokens)
    generator = random.Random(seed)
    contexts = []  # the first sentence of each, with its gaps: (row, name)
    for begin in range(
        0, len(sentences) - sentences_per_context + 1, sentences_per_context
    ):
        rows = range(begin, begin + sentences_per_context)
        if sum(len(tokens[r]) for r in rows) > max_context_tokens:
            continue
        gaps = [
            (r, token)
            for r in rows
            for token, count in collections.Counter(tokens[r]).items()
            if token in names
            and count == 1
            and 5 <= len(tokens[r]) <= max_question_tokens
        ]
        there = {t for r in rows for t in tokens[r] if t in names}
        if len(there) >= min_names and gaps:
            generator.shuffle(gaps)
            contexts.append((begin, gaps))
    possible = sum(len(gaps) for _, gaps in contexts)
    if possible < num_questions:
        raise ValueError(
            "Invalid value for argument sentences. Expected a text with names "
            f"for {num_questions} questions. Received: {len(sentences)} "
            f"sentences, which give {possible}"
        )
    turns = sorted(  # every context's first gap, then every second one, ...
        (turn, i)
        for i, (_, gaps) in enumerate(contexts)
        for turn in range(len(gaps))
    )
    count = collections.Counter(i for _, i in turns[:num_questions])
    return {
        "version": "1.1",
        "data": [
            {
                "title": "cloze",
                "paragraphs": [
                    _paragraph(
                        sentences[begin : begin + sentences_per_context],
                        [(r - begin, name) for r, name in gaps[: count[i]]],
                        f"cloze-{begin}",
                    )
                    for i, (begin, gaps) in enumerate(contexts)
                    if count[i]
                ],
            }
        ],
    }


def _paragraph(sentences, gaps, name) -> dict:
    """SQuAD's paragraph: sentences, and a question a gap in one of them."""
    questions = []
    for i, (row, answer) in enumerate(gaps):
        sentence = sentences[row]
        place = next(b for t, b, _ in tokenize(sentence) if t == answer)
        begin = sum(len(before) + 1 for before in sentences[:row]) + place
        rest = sentence[place + len(answer) :]
        questions.append(
            {
                "id": f"{name}-{i}",
                "question": sentence[:place] + GAP + rest,
                "answers": [{"text": answer, "answer_start": begin}],
            }
        )
    return {"context": " ".join(sentences), "qas": questions}


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
    weights = [len(p["qas"]) for p in paragraphs]
    return 100 * float(np.average(shares, weights=weights))


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
