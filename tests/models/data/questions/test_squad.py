"""Tests of models/data/questions/squad.py."""

import json

import pytest

from models.data.questions.squad import read, read_json

CONTEXT = "In 1990, New York's mayor (David Dinkins) was well-known."


def document(*questions, context=CONTEXT):
    return {
        "version": "1.1",
        "data": [
            {"paragraphs": [{"context": context, "qas": list(questions)}]}
        ],
    }


def question(number=0, text="Dinkins", start=None, **other):
    start = CONTEXT.find(text) if start is None else start
    return {
        "id": f"q{number}",
        "question": "Who was it?",
        "answers": [{"text": text, "answer_start": start}],
        **other,
    }


def test_reads_a_file(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(document(question())), encoding="utf-8")
    ((example,), skipped) = read(path)
    assert not skipped and str(skipped) == "no question left out"
    assert example.question_tokens == ("Who", "was", "it", "?")
    assert example.context_tokens[:4] == ("In", "1990", ",", "New")
    ((first, last),) = example.spans
    assert example.text(first, last) == "Dinkins"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("New York", ("New", "York")),
        ("York's mayor", ("York", "mayor")),
        ("(David Dinkins)", ("(", ")")),
        ("well", ("well", "well")),
        ("199", ("1990", "1990")),  # a part of a token: all of it
    ],
)
def test_spans_of_characters_become_spans_of_tokens(text, span):
    ((example,), _) = read_json(document(question(text=text)))
    ((first, last),) = example.spans
    tokens = example.context_tokens
    assert (tokens[first], tokens[last]) == span


def test_several_answers_and_one_that_is_not_there():
    entry = question()
    entry["answers"].append({"text": "David Dinkins", "answer_start": 27})
    entry["answers"].append({"text": "Koch", "answer_start": 3})
    ((example,), _) = read_json(document(entry))
    assert example.answers == ("Dinkins", "David Dinkins")
    assert example.spans[1] == (example.spans[0][0] - 1, example.spans[0][1])


def test_what_is_left_out_is_counted():
    examples, skipped = read_json(
        document(
            question(0),
            question(1, question=" "),
            question(2, answers=[]),
            question(3, start=5),
            question(4, start=-1),
            question(5, text=" ", start=2),
        )
    )
    assert [e.id for e in examples] == ["q0"]
    assert str(skipped) == (
        "3 left out: no answer stands where answer_start says (the first: q3); "
        "1 left out: the question has no words (the first: q1); 1 left out: it "
        "has no answer (the first: q2)"
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            [],
            "doc: expected a list under 'data', as in SQuAD v1.1. Received: "
            "None",
        ),
        (
            {"data": [{"paragraphs": {}}]},
            "doc: data[0]: expected a list under 'paragraphs', as in SQuAD "
            "v1.1. Received: {}",
        ),
        (
            document(question(id=7)),
            "doc: data[0].paragraphs[0].qas[0]: expected a string under 'id', "
            "as in SQuAD v1.1. Received: 7",
        ),
        (
            document(question(answers=[{"text": "x", "answer_start": "0"}])),
            "doc: data[0].paragraphs[0].qas[0].answers[0]: expected an integer "
            "under 'answer_start', as in SQuAD v1.1. Received: '0'",
        ),
        (
            document(question(), question()),
            "doc: data[0].paragraphs[0].qas[1]: the id 'q0' is there twice",
        ),
    ],
)
def test_other_formats(broken, message):
    with pytest.raises(ValueError) as error:
        read_json(broken, "doc")
    assert str(error.value) == message


def test_file_that_is_no_json(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text('{"data":\n [}')
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value) == (
        f"{path} is no JSON: Expecting value in line 2, column 3"
    )
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value) == (
        f"{path} is no UTF-8 text: invalid start byte at byte 0"
    )


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json")
