"""Tests of models/data/questions/span_metric.py."""

import pytest

from models.data.questions.span_metric import exact_match, f1, score


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "overlap"),
    [
        ("the Eiffel Tower", ["Eiffel tower."], 1, 1),
        ("An apple, a day", ["apple day"], 1, 1),
        ("theatre", ["the atre"], 0, 0),  # articles are words
        ("new york city", ["New York"], 0, 0.8),
        ("York", ["Paris", "New York"], 0, 2 / 3),
        ("to to to", ["to be"], 0, 0.4),  # counted as often as both have it
        ("", ["x"], 0, 0),
        ("the", ["a"], 1, 0),  # nothing is left of both: as the script
        ("1990-91", ["199091"], 1, 1),
        ("“x”", ["x"], 0, 0),  # only ASCII signs go
    ],
)
def test_hand_made_cases(prediction, answers, em, overlap):
    assert exact_match(prediction, answers) == em
    assert f1(prediction, answers) == pytest.approx(overlap)


def test_missing_questions_are_wrong():
    answers = {"a": ["x"], "b": ["y z"], "c": ["w"]}
    found = score({"a": "X!", "b": "y", "other": "w"}, answers)
    assert found == {
        "exact_match": pytest.approx(100 / 3),
        "f1": pytest.approx(100 * (1 + 2 / 3) / 3),
        "missing": 1,
    }


def test_no_questions():
    with pytest.raises(ValueError) as error:
        score({}, {})
    assert str(error.value) == (
        "Invalid value for argument answers. Expected one question or more. "
        "Received: none"
    )
