"""Questions in SQuAD v1.1's JSON, and where their answers are."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib

from models.data.questions.tokens import tokenize


@dataclasses.dataclass(frozen=True)
class Example:
    """A question.

    Attributes:
      id: of the question.
      context: the text.
      context_tokens: its words.
      context_spans: (start, end) of each in the text.
      question_tokens: words of the question.
      answers: right texts, one or more.
      spans: (first, last) token of each answer, both inclusive.
    """

    id: str
    context: str
    context_tokens: tuple[str, ...]
    context_spans: tuple[tuple[int, int], ...]
    question_tokens: tuple[str, ...]
    answers: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def text(self, first: int, last: int) -> str:
        """The text from one token to another, inclusive."""
        return self.context[
            self.context_spans[first][0] : self.context_spans[last][1]
        ]


class Skipped(collections.Counter):
    """Reason -> number of questions that were left out.

    Attributes:
      examples: reason -> id of the first.
    """

    def __init__(self):
        super().__init__()
        self.examples: dict[str, str] = {}

    def note(self, reason: str, question_id: str) -> None:
        """Counts one."""
        self[reason] += 1
        self.examples.setdefault(reason, question_id)

    def __str__(self):
        if not self:
            return "no question left out"
        return "; ".join(
            f"{count} left out: {reason} (the first: {self.examples[reason]})"
            for reason, count in self.most_common()
        )


def read(path) -> tuple[list[Example], Skipped]:
    """Reads a file in SQuAD v1.1's format.

    Args:
      path: of the JSON file.

    Returns:
      The questions in the file's order, and what was left out: questions
      without words, without answers, or none of whose answers is where the
      file says.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no JSON, or not in this format; the message has the
        line, or the place in the document.
    """
    path = pathlib.Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is no JSON: {error.msg} in line {error.lineno}, column "
            f"{error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    return read_json(document, str(path))


def read_json(
    document, name: str = "document"
) -> tuple[list[Example], Skipped]:
    """Reads a parsed document; see `read`.

    Args:
      document: what `json.load` returns.
      name: of the document, for errors.
    """
    examples, skipped, seen = [], Skipped(), set()
    for a, article in enumerate(_list(document, "data", name)):
        where = f"{name}: data[{a}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", where)):
            place = f"{where}.paragraphs[{p}]"
            context = _get(paragraph, "context", str, place)
            tokens = tokenize(context)
            for q, entry in enumerate(_list(paragraph, "qas", place)):
                here = f"{place}.qas[{q}]"
                question_id = _get(entry, "id", str, here)
                if question_id in seen:
                    raise ValueError(
                        f"{here}: the id {question_id!r} is there twice"
                    )
                seen.add(question_id)
                example = _example(
                    entry, question_id, context, tokens, here, skipped
                )
                if example is not None:
                    examples.append(example)
    return examples, skipped


def _example(entry, question_id, context, tokens, here, skipped):
    question = [t for t, _, _ in tokenize(_get(entry, "question", str, here))]
    if not question:
        return skipped.note("the question has no words", question_id)
    answers, spans = [], []
    given = _list(entry, "answers", here)
    for i, answer in enumerate(given):
        text = _get(answer, "text", str, f"{here}.answers[{i}]")
        start = _get(answer, "answer_start", int, f"{here}.answers[{i}]")
        if not text or context[start : start + len(text)] != text or start < 0:
            continue
        inside = [
            number
            for number, (_, begin, end) in enumerate(tokens)
            if begin < start + len(text) and end > start
        ]
        if inside:
            answers.append(text)
            spans.append((inside[0], inside[-1]))
    if not given:
        return skipped.note("it has no answer", question_id)
    if not answers:
        return skipped.note(
            "no answer stands where answer_start says", question_id
        )
    return Example(
        question_id,
        context,
        tuple(token for token, _, _ in tokens),
        tuple((begin, end) for _, begin, end in tokens),
        tuple(question),
        tuple(answers),
        tuple(spans),
    )


def _get(entry, key, kind, where):
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {str: "a string", int: "an integer", list: "a list"}
        raise ValueError(
            f"{where}: expected {names[kind]} under {key!r}, as in SQuAD "
            f"v1.1. Received: {value!r:.80}"
        )
    return value


def _list(entry, key, where):
    return _get(entry, key, list, where)
