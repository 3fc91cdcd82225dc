"""Tests of models/data/questions/cloze.py."""

import pytest

from models.data.questions import cloze, read_json
from models.data.questions.cloze import GAP, guess_rate

NAMES = ["Adam", "Eve", "Cain", "Abel", "Seth", "Enos"]


def sentences(count):
    return [
        f"And {NAMES[i % 6]} spoke to the man of {NAMES[(i + 1 + i // 6) % 6]}."
        for i in range(count)
    ]


def test_questions_can_be_answered():
    document = cloze(sentences(48), 30, seed=1)
    examples, skipped = read_json(document)
    assert len(examples) == 30 and not skipped
    for example in examples:
        (answer,) = example.answers
        ((first, last),) = example.spans
        assert example.text(first, last) == answer and answer in NAMES
        # With the answer in the gap the question is a part of the context.
        paragraphs = document["data"][0]["paragraphs"]
        question = next(
            question["question"]
            for p in paragraphs
            for question in p["qas"]
            if question["id"] == example.id
        )
        assert question.replace(GAP, answer) in example.context
        assert question.count(GAP) == 1
        before = question.split(GAP)[0]
        place = example.context.index(question.replace(GAP, answer))
        assert example.context_spans[first][0] == place + len(before)


def test_contexts_take_turns():
    paragraphs = cloze(sentences(48), 30)["data"][0]["paragraphs"]
    sizes = [len(p["qas"]) for p in paragraphs]
    assert sum(sizes) == 30 and max(sizes) - min(sizes) == 1
    assert all(
        len({question["question"] for question in p["qas"]}) == len(p["qas"])
        for p in paragraphs
    )


def test_seed_chooses_gaps():
    one, same = (cloze(sentences(48), 10, seed=1) for _ in range(2))
    assert one == same != cloze(sentences(48), 10, seed=2)


def test_words_at_the_beginning_of_a_sentence_are_no_names():
    document = cloze(sentences(48), 10)
    answers = {
        p["qas"][0]["answers"][0]["text"]
        for p in document["data"][0]["paragraphs"]
    }
    assert "And" not in answers


def test_guess_rate():
    text = [
        "Then Adam saw Eve in the land of Nod.",
        "They went far away then.",
    ] * 2
    document = cloze([*text, "and they saw."], 1, min_names=3)
    assert guess_rate(document) == pytest.approx(100 / 3)


def test_text_too_short():
    with pytest.raises(ValueError) as error:
        cloze(sentences(8), 20)
    assert str(error.value) == (
        "Invalid value for argument sentences. Expected a text with names for "
        "20 questions. Received: 8 sentences, which give 16"
    )
