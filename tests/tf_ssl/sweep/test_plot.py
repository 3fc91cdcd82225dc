import sys

import pytest

from tf_ssl.sweep import plot
from tf_ssl.sweep.points import Point


def _points(latency_ms=None):
    return [
        Point(0, 0.01, 1000, 10, latency_ms, "lasso"),
        Point(1e-3, 0.012, 400, 10, latency_ms, "lasso"),
        Point(0, 0.02, 300, 10, None, "direct"),
    ]


@pytest.mark.parametrize("latency_ms, panels", [(None, 1), (0.5, 2)])
def test_panels_and_curves(tmp_path, monkeypatch, latency_ms, panels):
    figure = pytest.importorskip("matplotlib.figure")
    made = []

    class Figure(figure.Figure):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            made.append(self)

    monkeypatch.setattr(figure, "Figure", Figure)
    path = tmp_path / "folder" / "sweep.png"
    plot.save(path, _points(latency_ms), "LeNet")
    assert path.read_bytes().startswith(b"\x89PNG")
    axes = made[0].axes
    assert len(axes) == panels
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["lasso", "direct"]
    assert axes[0].get_lines()[0].get_xdata().tolist() == [400, 1000]
    assert axes[0].get_lines()[0].get_ydata().tolist() == [1.2, 1.0]


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as error:
        plot.save("plot.png", _points())
    assert str(error.value) == (
        "Plots need matplotlib. Install it: pip install matplotlib, or leave "
        "out --plot. (import of matplotlib.figure halted; None in sys.modules)"
    )


def test_refuses_no_points():
    with pytest.raises(ValueError) as error:
        plot.save("plot.png", [])
    assert str(error.value) == (
        "Invalid value for argument points. Expected at least one point. "
        "Received: none"
    )


def test_methods_without_latency_are_not_in_that_panel():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.add_subplot()
    plot.draw(axes, _points(0.5), "latency_ms")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["lasso"]
