"""A small text with names in it, for language models and cloze questions."""

import random

_NAMES = "Adam Noah Sarah Ruth Saul David Esther Daniel Mary Paul".split()
_VERBS = "saw heard met left knew followed".split()
_PLACES = "river city field mountain garden".split()


def lines(count=400, seed=0):
    """Sentences of eight words and a point."""
    draw = random.Random(seed).choice
    return [
        f"then {draw(_NAMES)} {draw(_VERBS)} {draw(_NAMES)} at the "
        f"{draw(_PLACES)} again."
        for _ in range(count)
    ]


def write(path, count=400, seed=0):
    """Writes such a text; returns its path."""
    path.write_text("\n".join(lines(count, seed)) + "\n")
    return path
