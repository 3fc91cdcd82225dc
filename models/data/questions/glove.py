"""Word vectors from GloVe's text files."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np


def read_vectors(
    path, words: Sequence[str], dimension: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vectors of some words.

    A word takes the vector of the first of its forms that the file has: as it
    is, Capitalized, lower case, UPPER CASE.

    Args:
      path: of a file such as glove.6B.100d.txt: a word and its numbers in each
        line.
      words: of the vocabulary.
      dimension: numbers of a line.

    Returns:
      float32 `[words, dimension]`, zeros for words that the file lacks; and
      boolean `[words]`, which words it has.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line has another number of numbers, or something else; the
        message has its number.
    """
    path = pathlib.Path(path)
    wanted: dict[str, list[tuple[int, int]]] = {}
    for i, word in enumerate(words):
        forms = (word, word.capitalize(), word.lower(), word.upper())
        for preference, form in enumerate(forms):
            wanted.setdefault(form, []).append((i, preference))
    vectors = np.zeros((len(words), dimension), np.float32)
    best = np.full(len(words), 4)
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            # A few words of the large files have spaces in them.
            parts = line.rstrip("\n").rsplit(" ", dimension)
            if len(parts) != dimension + 1 or (number == 1 and " " in parts[0]):
                found = len(line.split()) - 1
                raise ValueError(
                    f"{path}, line {number}: expected a word and {dimension} "
                    f"numbers. Received: {found} numbers"
                )
            if parts[0] not in wanted:
                continue
            try:
                vector = np.array(parts[1:], np.float32)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: expected numbers behind the word "
                    f"{parts[0]!r}. Received: {line[:60]!r}"
                ) from error
            for i, preference in wanted[parts[0]]:
                if preference < best[i]:
                    best[i] = preference
                    vectors[i] = vector
    return vectors, best < 4
