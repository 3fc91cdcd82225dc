"""Tests of models/data/questions/tokens.py."""

import pytest

from models.data.questions.tokens import tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n ", []),
        ("well-known “Rome”", ["well", "-", "known", "“", "Rome", "”"]),
        ("it's they'll can't", ["it", "'s", "they", "'ll", "ca", "n't"]),
        ("1,000.5, 3.14. 7", ["1,000.5", ",", "3.14", ".", "7"]),
        ("Łódź 東京 (1990–91)", ["Łódź", "東京", "(", "1990", "–", "91", ")"]),
        ("o'clock U.S.", ["o", "'", "clock", "U", ".", "S", "."]),
    ],
)
def test_tokens_and_their_places(text, tokens):
    found = tokenize(text)
    assert [token for token, _, _ in found] == tokens
    for token, start, end in found:
        assert text[start:end] == token


def test_nothing_but_spaces_is_lost():
    text = "A 'quoted' (word), isn't it?! £5 — 50%…\t“x”"
    pieces = "".join(token for token, _, _ in tokenize(text))
    assert pieces == "".join(text.split())
