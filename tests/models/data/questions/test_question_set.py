"""Sets of questions from files, and those made from a text."""

import json

import numpy as np
import pytest

from models.data.questions import question_set
from tests import fake_images, fake_text


def document(count, begin=0):
    """One paragraph and one question each."""
    paragraphs = [
        {
            "context": f"The king of town{i} was Saul{i} the great.",
            "qas": [
                {
                    "id": f"q{i}",
                    "question": f"Who was king of town{i}?",
                    "answers": [
                        {"text": f"Saul{i}", "answer_start": 21 + len(str(i))}
                    ],
                }
            ],
        }
        for i in range(begin, begin + count)
    ]
    return {"version": "1.1", "data": [{"paragraphs": paragraphs}]}


def write(path, *args):
    path.write_text(json.dumps(document(*args)))
    return path


def test_train_and_dev(tmp_path):
    write(tmp_path / "train-v1.1.json", 10)
    write(tmp_path / "dev-v1.1.json", 4, 100)
    found = question_set.load("squad", tmp_path)
    assert (found.num_train, found.num_test) == (10, 4)
    assert set(found.answers()) == {f"q{i}" for i in range(100, 104)}
    assert "saul3" in found.vocabulary.words
    assert "saul100" not in found.vocabulary.words
    assert str(found) == (
        "squad, 10 training and 4 test questions, "
        f"{len(found.vocabulary.words)} words; no question left out"
    )


def test_file_alone_is_split_by_paragraphs(tmp_path):
    path = write(tmp_path / "some.json", 23)
    for where in (path, tmp_path):
        found = question_set.load("squad", where)
        assert set(found.answers()) == {f"q{i}" for i in (4, 9, 14, 19)}
        assert found.num_train == 19


def test_what_is_left_out_is_counted(tmp_path):
    wrong = document(10)
    qas = wrong["data"][0]["paragraphs"]
    qas[0]["qas"][0]["answers"][0]["answer_start"] = 1
    qas[4]["qas"][0]["question"] = "  "
    (tmp_path / "some.json").write_text(json.dumps(wrong))
    found = question_set.load("squad", tmp_path)
    assert str(found).endswith(
        "1 left out: no answer stands where answer_start says (the first: q0);"
        " 1 left out: the question has no words (the first: q4)"
    )


def test_given_vectors(tmp_path):
    write(tmp_path / "some.json", 10)
    glove = tmp_path / "glove.txt"
    glove.write_text("king 1 2\nSaul9 3 4\nqueen 5 6\n")
    found = question_set.load(
        "squad", tmp_path, vectors=glove, dimension=2, min_count=2
    )
    # Behind the trained ones; words of the test, too, and no other.
    given = found.vocabulary.words[found.num_trained :]
    assert dict(zip(given, found.word_vectors.tolist(), strict=True)) == {
        "king": [1, 2],
        "saul9": [3, 4],
    }
    assert "king" not in found.vocabulary.words[: found.num_trained]
    inputs, _ = next(iter(found.test(2)))
    assert found.vocabulary.word_ids(["king"])[0] in inputs["context"].numpy()


def test_vectors_of_another_size(tmp_path):
    write(tmp_path / "some.json", 10)
    glove = tmp_path / "glove.txt"
    glove.write_text("king 1 2\n")
    with pytest.raises(ValueError) as error:
        question_set.load("squad", tmp_path, vectors=glove, dimension=3)
    assert str(error.value) == (
        f"{glove}, line 1: expected a word and 3 numbers. Received: 2 numbers"
    )


def test_cloze(tmp_path):
    path = fake_text.write(tmp_path / "text.txt")
    found = question_set.load("cloze", path, num_questions=50)
    assert (found.num_train, found.num_test) == (40, 10)
    assert 10 < found.guess_rate < 34
    seen = [np.array(x["question"]) for x, _ in found.train(8, 0, 2).take(2)]
    again = found.train(8, 0, 2, start_epoch=1).take(1)
    assert seen[0].shape[0] == 8
    assert (np.array(next(iter(again))[0]["question"]) != seen[0]).any()


def test_virtual_workers_share_a_step(tmp_path):
    path = fake_text.write(tmp_path / "text.txt")
    found = question_set.load("cloze", path, num_questions=50)
    both = next(iter(found.train(4, 0, 2, num_ranks=2)))[0]["context"]
    each = [next(iter(found.train(4, r, 2)))[0]["context"] for r in (0, 1)]
    np.testing.assert_array_equal(both, np.concatenate(each))


def test_no_questions(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        question_set.load("squad", tmp_path)
    assert str(error.value) == (
        "No questions. Expected train*.json and dev*.json, one .json file, or "
        f"TFDS's squad. Looked in: {tmp_path}"
    )


def test_squad_without_a_folder():
    with pytest.raises(ValueError) as error:
        question_set.load("squad")
    assert str(error.value) == (
        "Dataset 'squad' needs data_dir: a folder with train*.json and "
        "dev*.json, or a file in SQuAD v1.1's format. Received: data_dir=None"
    )


def test_another_name():
    with pytest.raises(ValueError) as error:
        question_set.load("trivia")
    assert str(error.value) == (
        "Invalid value for argument name. Expected 'squad' or 'cloze'. "
        "Received: name='trivia'"
    )


def test_squad_as_tfds_prepares_it(tmp_path):
    fake_images.prepare_squad(tmp_path)
    found = question_set.load("squad", tmp_path)
    assert (found.num_train, found.num_test) == (100, 21)
    assert found.answers()["q1003"] == ("Saul1003", "king Saul1003")
    assert not found.skipped
