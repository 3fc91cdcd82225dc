"""What the benchmarks that train small networks share."""

import importlib.util
import pathlib
import types

import numpy as np
import pytest

_PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "small_runs.py"
_SPEC = importlib.util.spec_from_file_location("small_runs", _PATH)
small_runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(small_runs)


@pytest.fixture
def options(monkeypatch):
    values = types.SimpleNamespace(report_only=False, threads=1)
    monkeypatch.setattr(small_runs.flags, "FLAGS", values)
    return values


def test_runs_are_done_once(options, tmp_path, capsys):
    done = []

    def run():
        done.append(1)
        return {"accuracy": 99.0}

    found = small_runs.once(tmp_path, "a", run)
    assert found["accuracy"] == 99.0 and found["seconds"] >= 0
    assert small_runs.once(tmp_path, "a", run) == found
    assert done == [1]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.json"]
    options.report_only = True
    assert small_runs.once(tmp_path, "a", run) == found
    assert small_runs.once(tmp_path, "b", run) is None
    assert done == [1]
    assert "a: {" in capsys.readouterr().out


def test_a_run_that_dies_leaves_nothing(options, tmp_path):
    def run():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_runs.once(tmp_path, "a", run)
    assert not (tmp_path / "runs").exists()


def test_images_are_drawn_by_the_seed():
    (first, labels), test = small_runs.images(20, 0, size=16)
    again = small_runs.images(20, 0, size=16)[0]
    other = small_runs.images(20, 1, size=16)[0]
    assert first.shape == (20, 16, 16, 1) and len(test[0]) == 10_000
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert (first != other[0]).any()


def test_table(options, tmp_path):
    text = small_runs.write_table(
        tmp_path, "Title", ["a", "b"], [[1, "x"]], ["A note.", ""]
    )
    assert text.startswith(
        "# Title\n\n| a | b |\n|---|---|\n| 1 | x |\n\nA note"
    )
    assert (tmp_path / "table.md").read_text() == text
    assert small_runs.mean_and_spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert small_runs.mean_and_spread([1.5]) == "1.50 ± 0.00"
