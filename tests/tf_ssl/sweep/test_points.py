import numpy as np
import pytest

from tf_ssl.sweep.points import Point, append, pareto_front, read


def _point(error, multiply_adds, strength=0.1, latency_ms=None):
    return Point(strength, error, multiply_adds, 7, latency_ms, "lasso")


def test_written_and_read(tmp_path):
    path = tmp_path / "folder" / "points.jsonl"
    points = [_point(0.01, 100), _point(0.02, 50, latency_ms=0.5)]
    assert read(path) == []
    for point in points:
        append(path, point)
    assert read(path) == points
    assert path.read_text().splitlines()[0] == (
        '{"strength": 0.1, "error": 0.01, "multiply_adds": 100, "parameters": '
        '7, "latency_ms": null, "label": "lasso"}'
    )


@pytest.mark.parametrize("line", ["{", "[1]", '{"error": 1}', "3"])
def test_bad_lines_are_named(tmp_path, line):
    path = tmp_path / "points.jsonl"
    append(path, _point(0.01, 100))
    with open(path, "a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value).startswith(
        f"Invalid line 2 of {path}. Expected a point with ['strength', "
        "'error', 'multiply_adds', 'parameters', 'latency_ms', 'label']. "
        f"Received: {line} ("
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", None])
def test_numbers(value):
    with pytest.raises(ValueError) as error:
        _point(value, 100)
    assert str(error.value) == (
        "Invalid value for argument error. Expected a finite number. Received: "
        f"error={value!r}"
    )


def test_front_against_every_pair():
    random = np.random.default_rng(0)
    points = [
        _point(float(e), int(m))
        for e, m in zip(
            random.integers(0, 9, 200) / 10,
            random.integers(1, 40, 200),
            strict=True,
        )
    ]

    def beats(a, b):
        no_worse = a.error <= b.error and a.multiply_adds <= b.multiply_adds
        return no_worse and a != b

    expected = {p for p in points if not any(beats(q, p) for q in points)}
    front = pareto_front(points)
    assert set(front) == expected
    assert len(front) == len(expected)
    costs = [p.multiply_adds for p in front]
    assert costs == sorted(costs)


def test_front_by_latency_leaves_out_what_was_not_measured():
    slow, fast = _point(0.1, 1, latency_ms=9.0), _point(0.2, 9, latency_ms=1.0)
    front = pareto_front([slow, _point(0.0, 1), fast], "latency_ms")
    assert front == [fast, slow]
