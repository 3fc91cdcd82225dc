"""Numbers of optimizers and compressions, in order of construction.

They are in the names of collectives, so they must be the same on all workers,
whatever those trace; with workers that joined later too (`tg.elastic.run`).
"""

import collections

_next = collections.Counter()


def take(kind: str) -> int:
    """The next number of this kind, from 0.

    >>> before = mark()
    >>> take("example"), take("example")
    (0, 1)
    >>> go_back(before)
    >>> take("example")
    0
    """
    number = _next[kind]
    _next[kind] += 1
    return number


def mark() -> dict:
    """Where the numbers are, for `go_back`."""
    return dict(_next)


def go_back(marked: dict) -> None:
    """Numbers go on from `mark()`: what was made since then is gone."""
    _next.clear()
    _next.update(marked)
