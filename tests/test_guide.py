"""The Python of docs/guide.md runs."""

import pathlib
import re

import keras
import pytest

import tf_ssl

_GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "guide.md"


@pytest.mark.slow
def test_blocks_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = _GUIDE.read_text()
    names = {}
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        line = text[: block.start()].count("\n") + 1
        # Line numbers in errors are those of the page.
        source = "\n" * line + block[1]
        exec(compile(source, str(_GUIDE), "exec"), names)
    # What the page says of its own results.
    small = keras.saving.load_model("small.keras")
    assert small.count_params() < 0.7 * names["build"]().count_params()
    assert tf_ssl.check_export(small, "small.tflite", names["images"]) < 0.2
    assert "bits_per_element" in capsys.readouterr().out
