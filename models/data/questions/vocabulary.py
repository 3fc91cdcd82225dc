"""Words and characters as numbers."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

import numpy as np

PADDING, UNKNOWN = 0, 1


class Vocabulary:
    """Numbers of words, in lower case, and of characters.

    0 is padding, 1 what is not known.

    Attributes:
      words: by number, `words[0]` and `words[1]` are names of the above.
      characters: likewise.
    """

    _SPECIAL = ("<pad>", "<unk>")

    def __init__(self, words: Sequence[str], characters: Sequence[str]):
        self.words = [*self._SPECIAL, *words]
        self.characters = [*self._SPECIAL, *characters]
        self._word = {w: i for i, w in enumerate(self.words) if i > UNKNOWN}
        self._character = {
            c: i for i, c in enumerate(self.characters) if i > UNKNOWN
        }

    @classmethod
    def of(
        cls,
        texts: Iterable[Sequence[str]],
        min_count: int = 1,
        min_character_count: int = 1,
        max_words: int | None = None,
    ) -> Vocabulary:
        """Of the words of texts, the most frequent first.

        Args:
          texts: lists of words.
          min_count: a rarer word is unknown.
          min_character_count: likewise.
          max_words: no more words than this, with the two special ones.
        """
        words, characters = collections.Counter(), collections.Counter()
        for text in texts:
            words.update(word.lower() for word in text)
            for word in text:
                characters.update(word)

        def kept(counter, least):
            rising = sorted(counter.items(), key=lambda x: (-x[1], x[0]))
            return [key for key, count in rising if count >= least]

        frequent = kept(words, min_count)
        if max_words is not None:
            frequent = frequent[: max(0, max_words - len(cls._SPECIAL))]
        return cls(frequent, kept(characters, min_character_count))

    def word_ids(self, tokens: Sequence[str]) -> np.ndarray:
        """int32 `[tokens]`."""
        return np.array(
            [self._word.get(t.lower(), UNKNOWN) for t in tokens], np.int32
        )

    def character_ids(self, tokens: Sequence[str], width: int) -> np.ndarray:
        """int32 `[tokens, width]`; longer words are cut."""
        ids = np.zeros((len(tokens), width), np.int32)
        for row, token in zip(ids, tokens, strict=True):
            for column, character in enumerate(token[:width]):
                row[column] = self._character.get(character, UNKNOWN)
        return ids

    def get_config(self) -> dict:
        """JSON-able; the inverse is `from_config`."""
        return {"words": self.words[2:], "characters": self.characters[2:]}

    @classmethod
    def from_config(cls, config: dict) -> Vocabulary:
        """Inverse of `get_config`."""
        return cls(**config)
