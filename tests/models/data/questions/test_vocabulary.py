"""Tests of models/data/questions/vocabulary.py and glove.py."""

import json

import numpy as np
import pytest

from models.data.questions.glove import read_vectors
from models.data.questions.vocabulary import Vocabulary

TEXTS = [["The", "cat", "sat"], ["the", "dog", "sat", "the"]]


def test_most_frequent_first():
    vocabulary = Vocabulary.of(TEXTS)
    assert vocabulary.words == ["<pad>", "<unk>", "the", "sat", "cat", "dog"]
    np.testing.assert_array_equal(
        vocabulary.word_ids(["THE", "cow", "dog"]), [2, 1, 5]
    )
    assert vocabulary.word_ids([]).shape == (0,)


def test_limits():
    assert Vocabulary.of(TEXTS, min_count=2).words[2:] == ["the", "sat"]
    assert Vocabulary.of(TEXTS, max_words=3).words[2:] == ["the"]
    rare = Vocabulary.of(TEXTS, min_character_count=3).characters[2:]
    assert rare == ["t", "a", "e", "h"] or set(rare) == set("tahe")


def test_characters():
    vocabulary = Vocabulary.of([["ab"]])
    ids = vocabulary.character_ids(["ba", "abc", ""], 2)
    np.testing.assert_array_equal(ids, [[3, 2], [2, 3], [0, 0]])
    np.testing.assert_array_equal(vocabulary.character_ids(["x"], 2), [[1, 0]])


def test_words_named_like_the_special_ones():
    vocabulary = Vocabulary.of([["<unk>", "<unk>", "a"]])
    assert vocabulary.word_ids(["<unk>", "a"]).tolist() == [2, 3]


def test_config_round_trip():
    vocabulary = Vocabulary.of(TEXTS)
    config = json.loads(json.dumps(vocabulary.get_config()))
    assert Vocabulary.from_config(config).words == vocabulary.words


def test_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(
        "CAT 9 9\nthe 1 2\nCat 3 4\n. . . 5 6\ncat 0.5 -1e-2\n", "utf-8"
    )
    vectors, known = read_vectors(path, ["the", "cat", "cow", "PARIS"], 2)
    np.testing.assert_allclose(vectors, [[1, 2], [0.5, -0.01], [0, 0], [0, 0]])
    assert known.tolist() == [True, True, False, False]
    path.write_text("CAT 9 9\nCat 3 4\n")
    vectors, _ = read_vectors(path, ["cat"], 2)
    np.testing.assert_allclose(vectors, [[3, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "the 1 2 3\n",
            "line 1: expected a word and 2 numbers. Received: 3 numbers",
        ),
        (
            "a 1 2\nthe 1\n",
            "line 2: expected a word and 2 numbers. Received: 1 numbers",
        ),
        (
            "a 1 2\nthe 1 x\n",
            "line 2: expected numbers behind the word 'the'. Received: "
            "'the 1 x\\n'",
        ),
    ],
)
def test_vectors_of_another_format(tmp_path, text, message):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_vectors(path, ["the"], 2)
    assert str(error.value) == f"{path}, {message}"
