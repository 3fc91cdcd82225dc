"""Any text as words, for language models."""

from __future__ import annotations

import collections
import gzip
import itertools
import lzma
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from models.data import order
from models.data.questions.tokens import tokenize

UNKNOWN, END = "<unk>", "<eos>"
SPLITS = ("train", "valid", "test")

# The King James Bible, which the repository carries.
DEFAULT_TEXT = (
    pathlib.Path(__file__).resolve().parents[2] / "data/text/king_james.txt.xz"
)
_OPEN = {".gz": gzip.open, ".xz": lzma.open}

# A single file goes to the splits in blocks of lines; of 20 blocks one is for
# validation and one for the test.
_BLOCK_LINES, _BLOCKS, _VALID, _TEST = 100, 20, 9, 19


class Words:
    """Training, validation and test text, as numbers of words.

    A batch is `rows` places of the text, each of which goes on where it ended
    in the batch before, so that a model can carry its state over. Row r of R
    reads the r-th of R parts of the text; of N workers each has R / N rows.

    Attributes:
      name: of the file or folder.
      vocabulary: word of each number.
      num_train: words of the training text, its ends of lines among them.
      num_valid: likewise.
      num_test: likewise.
      num_unknown: split -> words that are not in the vocabulary.
      num_steps: words of a row of a batch.
    """

    def __init__(
        self,
        name: str,
        texts: dict[str, Sequence[Sequence[str]]],
        vocab_size: int = 10000,
        num_steps: int = 35,
    ):
        """Counts and encodes words.

        The vocabulary is that of the training text: the most frequent words,
        equally frequent ones in alphabetical order, and "<unk>". "<eos>" ends
        each line.

        Args:
          name: of the text.
          texts: for each of `SPLITS`, lines of words.
          vocab_size: at most this many words, "<unk>" and "<eos>" among them.
          num_steps: words of a row of a batch, at least 1.

        Raises:
          ValueError: a split has no words, or `vocab_size` is below 3.
        """
        if vocab_size < 3:
            raise ValueError(
                "Invalid value for argument vocab_size. Expected an integer "
                f">= 3. Received: vocab_size={vocab_size}"
            )
        if num_steps < 1:
            raise ValueError(
                "Invalid value for argument num_steps. Expected an integer >= "
                f"1. Received: num_steps={num_steps}"
            )
        self.name = name
        self.num_steps = num_steps
        split_words = {
            split: [word for line in texts[split] for word in (*line, END)]
            for split in SPLITS
        }
        for split, words in split_words.items():
            if not words:
                raise ValueError(f"{name}: the {split} text has no words")
        self.vocabulary = vocabulary(split_words["train"], vocab_size)
        number = {word: i for i, word in enumerate(self.vocabulary)}
        unknown = number[UNKNOWN]
        self._ids = {
            split: np.array([number.get(w, unknown) for w in words], np.int32)
            for split, words in split_words.items()
        }
        self.num_unknown = {
            split: sum(word not in number for word in words)
            for split, words in split_words.items()
        }
        self.num_train, self.num_valid, self.num_test = (
            len(self._ids[split]) for split in SPLITS
        )

    def ids(self, split: str) -> np.ndarray:
        """The words of a split as numbers, int32 `[words]`."""
        return self._ids[split]

    def steps_per_epoch(self, batch_size: int, size: int = 1) -> int:
        """Returns the batches of an epoch, the same on all workers.

        Raises:
          ValueError: not one batch of training or of validation is possible.
        """
        fewest = min(self.num_train, self.num_valid)
        most = fewest // (self.num_steps + 1) // size
        if not 1 <= batch_size <= most:
            raise ValueError(
                "Invalid value for argument batch_size. Expected 1 to "
                f"{most} rows of {self.num_steps} words and the next one, on "
                f"{size} worker(s), of the {self.num_train:,} training and "
                f"{self.num_valid:,} validation words of {self.name}. "
                f"Received: batch_size={batch_size}"
            )
        return (self.num_train // (batch_size * size) - 1) // self.num_steps

    def test_examples(self, rank: int = 0, size: int = 1) -> int:
        """Returns this worker's share of the validation words."""
        order.check_worker(rank, size)
        return self.num_valid // size

    def train(
        self,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        seed: int = 0,
        start_epoch: int = 0,
        num_ranks: int = 1,
    ) -> tf.data.Dataset:
        """Returns this worker's batches, epoch after epoch without end.

        Words and the word after each, both int32 `[batch_size, num_steps]`.
        What does not fill a batch at the end is left out. All epochs have the
        same order, so `seed` and `start_epoch` change nothing.

        Args:
          batch_size: rows of a worker.
          rank: which worker, in [0, size).
          size: number of workers.
          seed: has no effect.
          start_epoch: has no effect.
          num_ranks: must be 1: states of rows are one worker's.

        Raises:
          ValueError: `batch_size`, `rank` or `num_ranks` does not fit.
        """
        del seed, start_epoch
        if num_ranks != 1:
            raise ValueError(
                "Invalid value for argument num_ranks. Expected 1: rows of a "
                f"text belong to one worker. Received: num_ranks={num_ranks}"
            )
        self.steps_per_epoch(batch_size, size)
        return self.batches("train", batch_size, rank, size).repeat()

    def test(
        self, batch_size: int, rank: int = 0, size: int = 1
    ) -> tf.data.Dataset:
        """Returns this worker's batches of the validation text, once."""
        self.steps_per_epoch(batch_size, size)
        return self.batches("valid", batch_size, rank, size)

    def batches(
        self, split: str, rows: int, rank: int = 0, size: int = 1
    ) -> tf.data.Dataset:
        """Returns a split once; one row of one worker has all its words.

        Args:
          split: one of `SPLITS`.
          rows: of a batch.
          rank: which worker, in [0, size).
          size: number of workers.

        Raises:
          ValueError: not one batch is possible.
        """
        order.check_worker(rank, size)
        ids = self._ids[split]
        length = len(ids) // (rows * size)
        # [rows * size * length] -> [rows of all workers, length]
        everyone = np.reshape(ids[: rows * size * length], (-1, length))
        mine = everyone[rank * rows : (rank + 1) * rows]
        whole = (length - 1) // self.num_steps
        # The last batch of a single row may be shorter.
        rest = (length - 1) % self.num_steps if rows * size == 1 else 0
        if not whole and not rest:
            raise ValueError(
                f"Invalid value for argument rows. Expected 1 to "
                f"{len(ids) // (self.num_steps + 1) // size} rows of "
                f"{self.num_steps} words and the next one, of the {len(ids):,} "
                f"words of the {split} text. Received: rows={rows}"
            )
        text = tf.constant(mine)

        def part(begin, count):
            words = text[:, begin : begin + count + 1]
            return words[:, :-1], words[:, 1:]

        batches = tf.data.Dataset.range(whole).map(
            lambda step: part(
                tf.cast(step, tf.int32) * self.num_steps, self.num_steps
            )
        )
        if rest:
            last = part(whole * self.num_steps, rest)
            batches = batches.concatenate(tf.data.Dataset.from_tensors(last))
        return batches.prefetch(4)

    def __str__(self):
        counts = ", ".join(
            f"{len(self._ids[split]):,} {title} words "
            f"({self.num_unknown[split]:,} unknown)"
            for split, title in zip(
                SPLITS, ("training", "validation", "test"), strict=True
            )
        )
        return (
            f"{self.name}, {counts}, vocabulary of {len(self.vocabulary):,}"
        )


def vocabulary(words: Sequence[str], size: int) -> list[str]:
    """The most frequent words; "<unk>" is always one of them.

    >>> vocabulary("a b b <eos> c <eos>".split(), 4)
    ['<eos>', 'b', 'a', '<unk>']
    """
    counts = collections.Counter(words)
    rising = sorted(counts, key=lambda word: (-counts[word], word))
    kept = rising[:size]
    if UNKNOWN not in kept:
        kept = [*rising[: size - 1], UNKNOWN]
    return kept


def load(
    path: str | pathlib.Path | None = None,
    vocab_size: int = 10000,
    num_steps: int = 35,
    max_words: int | None = None,
) -> Words:
    """Reads a text.

    A text that holds "<unk>" was cut into words by others, as Penn Treebank's:
    it is taken as it is, between white space. Any other becomes words in lower
    case without punctuation, as Penn Treebank's were.

    Example:
    >>> load(max_words=50000).vocabulary[:3]
    ['and', 'the', '<eos>']

    Args:
      path: a folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or
        train.txt, valid.txt and test.txt; or a file, of which 90, 5 and 5 % of
        the lines become the three texts, in blocks of 100 lines. Files may end
        in .gz or .xz. None: the King James Bible.
      vocab_size: see `Words`.
      num_steps: see `Words`.
      max_words: reads only so many words of a file, or of the training text of
        a folder, to the end of the line. None: all.

    Raises:
      FileNotFoundError: there is no such text.
      ValueError: a file is no UTF-8 text, or what `Words` refuses.

    Reference: the word-level preprocessing of Mikolov et al., Recurrent neural
    network based language model, Interspeech 2010.
    """
    path = pathlib.Path(path or DEFAULT_TEXT)
    if path.is_dir():
        files = _files(path)
        texts = {split: _lines(file) for split, file in files.items()}
        is_cut = any(UNKNOWN in line for line in texts["train"])
        texts = {split: _cut(lines, is_cut) for split, lines in texts.items()}
        texts["train"] = _first(texts["train"], max_words)
    else:
        lines = _lines(path)
        is_cut = any(UNKNOWN in line for line in lines)
        texts = _split(_first(_cut(lines, is_cut), max_words))
    return Words(path.name, texts, vocab_size, num_steps)


def lines(path: str | pathlib.Path | None = None) -> list[str]:
    """Lines of a text file that are not empty; see `load`."""
    return _lines(pathlib.Path(path or DEFAULT_TEXT))


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    for prefix in ("ptb.", ""):
        for ending in ("", *_OPEN):
            found = {
                split: folder / f"{prefix}{split}.txt{ending}"
                for split in SPLITS
            }
            if all(file.is_file() for file in found.values()):
                return found
    raise FileNotFoundError(
        "No text. Expected ptb.train.txt, ptb.valid.txt and ptb.test.txt, or "
        f"train.txt, valid.txt and test.txt. Looked in: {folder}"
    )


def _lines(path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"No text: no such file or folder: {path}")
    with _OPEN.get(path.suffix, open)(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    return [line for line in text.splitlines() if line.strip()]


def _cut(lines, is_cut: bool) -> list[list[str]]:
    if is_cut:
        return [line.split() for line in lines]
    cut = (
        [word for word, _, _ in tokenize(line.lower()) if _is_word(word)]
        for line in lines
    )
    return [words for words in cut if words]


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token)


def _first(lines, max_words: int | None):
    if not max_words:
        return lines
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    return [
        line
        for line, end in zip(lines, ends, strict=True)
        if end - len(line) - 1 < max_words
    ]


def _split(lines) -> dict[str, list]:
    block = max(1, min(_BLOCK_LINES, len(lines) // _BLOCKS))
    texts: dict[str, list] = {split: [] for split in SPLITS}
    for i, line in enumerate(lines):
        place = i // block % _BLOCKS
        split = {_VALID: "valid", _TEST: "test"}.get(place, "train")
        texts[split].append(line)
    return texts
