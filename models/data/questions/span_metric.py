"""The official metric of SQuAD v1.1."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and extra spaces.

    >>> normalize("The  Duke (of York)!")
    'duke of york'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if one of the answers is the prediction, normalized, else 0.0."""
    found = normalize(prediction)
    return float(any(found == normalize(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Largest F1 of the prediction's words and those of an answer.

    2 P R / (P + R), with P and R the shares of the prediction's and of the
    answer's words that both have, each as often as both have it.
    """
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction, answer):
    found, wanted = normalize(prediction).split(), normalize(answer).split()
    common = sum(
        (collections.Counter(found) & collections.Counter(wanted)).values()
    )
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def score(
    predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]
) -> dict:
    """EM and F1 of a set of questions.

    Args:
      predictions: question's id -> text.
      answers: question's id -> right texts. A question without a prediction
        counts as wrong.

    Returns:
      Dict with "exact_match" and "f1", percent of all questions, and "missing",
      the number of questions without a prediction.

    Raises:
      ValueError: there are no questions.

    Reference: Rajpurkar et al., SQuAD: 100,000+ questions for machine
    comprehension of text, EMNLP 2016, section 6.1, and its evaluation script.
    """
    if not answers:
        raise ValueError(
            "Invalid value for argument answers. Expected one question or "
            "more. Received: none"
        )
    known = [key for key in answers if key in predictions]
    return {
        "exact_match": 100
        * sum(exact_match(predictions[k], answers[k]) for k in known)
        / len(answers),
        "f1": 100
        * sum(f1(predictions[k], answers[k]) for k in known)
        / len(answers),
        "missing": len(answers) - len(known),
    }
