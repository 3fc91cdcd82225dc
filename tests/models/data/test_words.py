"""Texts as words, and their batches."""

import gzip

import numpy as np
import pytest

from models.data import words
from tests import fake_text


def write(folder, prefix="", **texts):
    for split, text in texts.items():
        (folder / f"{prefix}{split}.txt").write_text(text)
    return folder


def numbered(count, num_steps=3):
    """A training text whose words are 0, 1, 2, ... as numbers."""
    text = [[str(i) for i in range(count)]]
    found = words.Words(
        "numbers",
        {split: text for split in words.SPLITS},
        count + 2,
        num_steps,
    )
    order = {w: i for i, w in enumerate(found.vocabulary)}
    return found, np.array([order[str(i)] for i in range(count)])


def test_penn_treebank_is_taken_as_it_is(tmp_path):
    folder = write(
        tmp_path,
        "ptb.",
        train=" no it was n't <unk> 's N \n the N <unk> mr. x \n",
        valid=" no mr. y \n",
        test=" the N \n",
    )
    found = words.load(folder, num_steps=1)
    # By number and then alphabetically.
    assert found.vocabulary == [
        *("<eos>", "<unk>", "N"),
        *("'s", "it", "mr.", "n't", "no", "the", "was", "x"),
    ]
    assert [found.vocabulary[i] for i in found.ids("train")] == (
        "no it was n't <unk> 's N <eos> the N <unk> mr. x <eos>".split()
    )
    assert found.num_unknown == {"train": 0, "valid": 1, "test": 0}
    assert (found.num_train, found.num_valid, found.num_test) == (14, 4, 3)


def test_any_other_text_becomes_lower_case_words(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("He didn't go -- to the Sea!\n\n  \n* * *\nNo.\n" * 20)
    found = words.load(path, num_steps=1)
    text = [found.vocabulary[i] for i in found.ids("train")]
    assert text[:10] == "he did n't go to the sea <eos> no <eos>".split()
    assert found.num_unknown["train"] == 0


def test_rare_words_are_unknown_and_counted(tmp_path):
    folder = write(
        tmp_path, train="a a a b b c d\n", valid="a d e\n", test="c\n"
    )
    found = words.load(folder, vocab_size=4, num_steps=1)
    assert found.vocabulary == ["a", "b", "<eos>", "<unk>"]
    assert found.num_unknown == {"train": 2, "valid": 2, "test": 1}
    assert str(found) == (
        f"{folder.name}, 8 training words (2 unknown), 4 validation words "
        "(2 unknown), 2 test words (1 unknown), vocabulary of 4"
    )


def test_one_file_is_split_in_blocks(tmp_path):
    path = tmp_path / "text.txt.gz"
    lines = [f"w{i:04d}" for i in range(4000)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = words.load(path, num_steps=1)
    texts = {
        split: [found.vocabulary[i] for i in found.ids(split)[::2]]
        for split in ("train",)
    }
    assert len(texts["train"]) == 3600
    assert found.num_valid == found.num_test == 400
    assert "w0899" in texts["train"] and "w0900" not in texts["train"]
    assert "w1900" not in texts["train"] and "w2000" in texts["train"]


def test_beginning_of_a_text(tmp_path):
    path = fake_text.write(tmp_path / "text.txt")
    found = words.load(path, num_steps=1, max_words=300)
    assert 300 <= found.num_train + found.num_valid + found.num_test < 310


def test_king_james():
    found = words.load(max_words=50000)
    assert found.vocabulary[:3] == ["and", "the", "<eos>"]
    begin = [found.vocabulary[i] for i in found.ids("train")[:5]]
    assert begin == "in the beginning god created".split()


def test_rows_go_on_from_batch_to_batch():
    found, number = numbered(40)
    batches = list(found.batches("train", 2, 0, 2))
    rows = [
        np.concatenate([np.array(x) for x, _ in batches], axis=1)
        for batches in (batches, list(found.batches("train", 2, 1, 2)))
    ]
    # 41 words in 4 rows of 10: nine of them have a next word.
    for row, begin in zip(np.concatenate(rows), (0, 10, 20, 30), strict=True):
        np.testing.assert_array_equal(row, number[begin : begin + 9])
    for x, y in batches:
        assert x.shape == y.shape == (2, 3)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert len(batches) == found.steps_per_epoch(2, 2) == 3


def test_one_row_has_all_words():
    found, number = numbered(40, num_steps=7)
    x, y = (
        np.concatenate([np.array(part[i])[0] for part in found.batches("test", 1)])
        for i in (0, 1)
    )
    np.testing.assert_array_equal(x, number)
    np.testing.assert_array_equal(y[:-1], number[1:])
    assert found.vocabulary[y[-1]] == "<eos>"


def test_epochs_follow_without_end():
    found, _ = numbered(40)
    steps = found.steps_per_epoch(4)
    seen = [np.array(x) for x, _ in found.train(4).take(2 * steps)]
    for first, second in zip(seen[:steps], seen[steps:], strict=True):
        np.testing.assert_array_equal(first, second)


def message(action, kind=ValueError):
    with pytest.raises(kind) as error:
        action()
    return str(error.value)


def test_text_too_short_for_the_batch():
    found, _ = numbered(40)
    assert message(lambda: found.steps_per_epoch(6, 2)) == (
        "Invalid value for argument batch_size. Expected 1 to 5 rows of 3 "
        "words and the next one, on 2 worker(s), of the 41 training and 41 "
        "validation words of numbers. Received: batch_size=6"
    )
    assert found.steps_per_epoch(5, 2) == 1


def test_no_text(tmp_path):
    assert message(lambda: words.load(tmp_path), FileNotFoundError) == (
        "No text. Expected ptb.train.txt, ptb.valid.txt and ptb.test.txt, or "
        f"train.txt, valid.txt and test.txt. Looked in: {tmp_path}"
    )
    assert message(lambda: words.load(tmp_path / "x"), FileNotFoundError) == (
        f"No text: no such file or folder: {tmp_path}/x"
    )


def test_empty_text(tmp_path):
    folder = write(tmp_path, train="a\n", valid=" \n", test="b\n")
    assert message(lambda: words.load(folder)) == (
        f"{folder.name}: the valid text has no words"
    )


def test_no_utf8(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"good \xff bad\n")
    assert message(lambda: words.load(path)) == (
        f"{path} is no UTF-8 text: invalid start byte at byte 5"
    )


@pytest.mark.parametrize(
    "name, value, least", [("vocab_size", 2, 3), ("num_steps", 0, 1)]
)
def test_sizes_too_small(tmp_path, name, value, least):
    path = fake_text.write(tmp_path / "text.txt", 30)
    assert message(lambda: words.load(path, **{name: value})) == (
        f"Invalid value for argument {name}. Expected an integer >= {least}. "
        f"Received: {name}={value}"
    )


def test_virtual_workers_have_no_rows():
    found, _ = numbered(40)
    assert message(lambda: found.train(2, size=2, num_ranks=2)) == (
        "Invalid value for argument num_ranks. Expected 1: rows of a text "
        "belong to one worker. Received: num_ranks=2"
    )


def test_rows_of_a_test_that_do_not_fit():
    found, _ = numbered(40)
    assert message(lambda: found.batches("test", 20)) == (
        "Invalid value for argument rows. Expected 1 to 10 rows of 3 words and "
        "the next one, of the 41 words of the test text. Received: rows=20"
    )
