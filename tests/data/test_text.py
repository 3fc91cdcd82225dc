"""The text that the repository carries."""

import pathlib

from models.data import words


def test_king_james_is_whole():
    lines = words.lines()
    assert len(lines) == 31102
    assert sum(len(line.split()) for line in lines) == 789630
    assert lines[0] == "In the beginning God created the heavens and the earth."
    assert lines[-1].endswith("be with you all. Amen.")
    # No numbers of verses are left.
    assert not any(character.isdigit() for line in lines for character in line)


def test_readme_says_how_large_it_is():
    readme = pathlib.Path(words.DEFAULT_TEXT).parents[1] / "README.md"
    size = words.DEFAULT_TEXT.stat().st_size
    assert f"| {size:,} |" in readme.read_text()
