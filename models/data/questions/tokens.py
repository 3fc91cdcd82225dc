"""Words of a text and where they are in it."""

from __future__ import annotations

import re

# Numbers with their commas and points; words, before a contraction's ending;
# the endings; anything else character by character.
_TOKEN = re.compile(
    r"\d+(?:[.,]\d+)*"
    r"|[^\W\d_]+?(?=n['’]t\b)"
    r"|n['’]t\b"
    r"|['’](?:s|re|ve|ll|d|m)\b"
    r"|\w+"
    r"|[^\w\s]",
    re.IGNORECASE,
)


def tokenize(text: str) -> list[tuple[str, int, int]]:
    """Cuts a text into words, numbers and signs.

    Hyphens, dashes, slashes and quotation marks are tokens of their own, as in
    BiDAF, so that spans can begin and end at them.

    Args:
      text: any.

    Returns:
      (token, start, end) with `text[start:end] == token`, in order.

    Departure: one regular expression for contexts and questions instead of
    NLTK's tokenizer and a second cut for contexts alone.

    >>> [token for token, _, _ in tokenize("He didn't pay $1,200.50.")]
    ['He', 'did', "n't", 'pay', '$', '1,200.50', '.']
    """
    return [
        (match.group(), match.start(), match.end())
        for match in _TOKEN.finditer(text)
    ]
