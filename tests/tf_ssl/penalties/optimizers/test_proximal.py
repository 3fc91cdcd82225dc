"""The proximal step, against bisection and its optimality conditions."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.penalties.optimizers.proximal_reference import prox
from tf_ssl.penalties.optimizers import proximal
from tf_ssl.penalties.optimizers.segments import Groups, Segment

RNG = np.random.default_rng(1)
SIZE = 8
SHAPES = {0: (5, SIZE), 1: (SIZE, 3)}


def _groups():
    """8 units with a column of one variable and a row of another."""
    groups = Groups("units", [], SIZE, [])
    groups.segments = [
        Segment(0, np.arange(SIZE)[None], SIZE),
        Segment(1, np.arange(SIZE)[:, None], SIZE),
    ]
    return groups


def _problem(dtype, spread):
    """Values, metrics over `spread` decades, and steps that kill half."""
    values = {p: RNG.normal(size=s).astype(dtype) for p, s in SHAPES.items()}
    metrics = {
        p: (10 ** RNG.uniform(-spread, 0, size=s)).astype(dtype)
        for p, s in SHAPES.items()
    }
    pulls = [
        np.linalg.norm(_weights(values, u) * _weights(metrics, u))
        for u in range(SIZE)
    ]
    factors = [0.0, 1e-6, 0.1, 0.5, 0.99, 1.01, 2.0, 100.0]
    steps = (np.array(pulls) * factors).astype(dtype)
    return values, metrics, steps


def _weights(values, unit):
    return np.concatenate([values[0][:, unit], values[1][unit]])


def _tensors(values):
    return {p: tf.constant(v) for p, v in values.items()}


@pytest.mark.parametrize("spread", [0, 1, 4, 8])
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-5), ("float64", 1e-11)])
def test_step_in_a_metric(dtype, rtol, spread):
    values, metrics, steps = _problem(dtype, spread)
    after, taken, norms = proximal.proximal_step(
        [_groups()], _tensors(values), [tf.constant(steps)], _tensors(metrics)
    )
    after = {p: v.numpy() for p, v in after.items()}
    for unit in range(SIZE):
        y = _weights(values, unit).astype(np.float64)
        d = _weights(metrics, unit).astype(np.float64)
        expected = prox(y, d, float(steps[unit]))
        x = _weights(after, unit)
        # Rounded as the values are.
        atol = 4 * np.finfo(dtype).eps * np.abs(y).max()
        np.testing.assert_allclose(x, expected, rtol=rtol, atol=atol)
        assert norms[0][unit].numpy() == pytest.approx(
            np.linalg.norm(expected), rel=rtol, abs=1e-9
        )
    dead = [not _weights(after, u).any() for u in range(SIZE)]
    assert dead == [False] * 5 + [True] * 3
    for p in SHAPES:
        np.testing.assert_allclose(
            values[p] - after[p], taken[p], atol=1e-6, rtol=1e-5
        )


def test_optimality():
    values, metrics, steps = _problem("float64", 3)
    after, _, _ = proximal.proximal_step(
        [_groups()], _tensors(values), [tf.constant(steps)], _tensors(metrics)
    )
    after = {p: v.numpy() for p, v in after.items()}
    for unit in range(5):
        x, y = _weights(after, unit), _weights(values, unit)
        pull = _weights(metrics, unit) * (x - y)
        residual = pull + steps[unit] * x / np.linalg.norm(x)
        np.testing.assert_allclose(residual, 0, atol=1e-13)


def test_euclidean_step_is_the_group_soft_threshold():
    values, _, _ = _problem("float64", 0)
    norms = [np.linalg.norm(_weights(values, u)) for u in range(SIZE)]
    step = np.median(norms)
    after, taken, norms_after = proximal.proximal_step(
        [_groups()], _tensors(values), [tf.fill([SIZE], step)]
    )
    factor = np.maximum(0, 1 - step / np.array(norms))
    np.testing.assert_allclose(after[0], values[0] * factor, rtol=1e-13)
    np.testing.assert_allclose(
        after[1], values[1] * factor[:, None], rtol=1e-13
    )
    np.testing.assert_allclose(taken[0], values[0] * (1 - factor), rtol=1e-12)
    np.testing.assert_allclose(norms_after[0], norms * factor, atol=1e-12)
    assert (factor == 0).sum() == (after[0].numpy() == 0).all(0).sum() == 4


@pytest.mark.parametrize("metric", [None, 1.0])
def test_zero_groups_and_zero_steps(metric):
    values = {0: np.zeros((5, SIZE)), 1: np.zeros((SIZE, 3))}
    values[0][:, 0] = 1.0
    metrics = metric and {p: np.full(s, metric) for p, s in SHAPES.items()}
    for step in (0.0, 0.1):
        after, _, norms = proximal.proximal_step(
            [_groups()],
            _tensors(values),
            [tf.fill([SIZE], tf.constant(step, tf.float64))],
            metrics and _tensors(metrics),
        )
        assert (after[0].numpy()[:, 1:] == 0).all()
        assert (after[1].numpy() == 0).all()
        assert float(norms[0][0]) == pytest.approx(np.sqrt(5) - step)
        assert (norms[0].numpy()[1:] == 0).all()


def test_steps_of_two_structures_on_one_variable():
    """Columns 0 and 1 belong to one structure, column 3 to another."""
    first = Groups("a", [], 2, [])
    first.segments = [Segment(0, np.array([[0, 1, -1, -1]]), 2)]
    second = Groups("b", [], 1, [])
    second.segments = [Segment(0, np.array([[-1, -1, -1, 0]]), 1)]
    values = {0: tf.constant(np.full((1, 4), 3.0))}
    after, _, _ = proximal.proximal_step(
        [first, second],
        values,
        [tf.constant([1.0, 5.0], tf.float64), tf.constant([2.0], tf.float64)],
    )
    np.testing.assert_allclose(after[0], [[2, 0, 3, 1]], rtol=1e-14)


def test_newton_needs_few_rounds(monkeypatch):
    values, metrics, steps = _problem("float64", 6)
    exact = proximal.norms_after(
        _groups(), _tensors(values), tf.constant(steps), _tensors(metrics)
    )
    monkeypatch.setattr(proximal, "MAX_ITERATIONS", 10)
    few = proximal.norms_after(
        _groups(), _tensors(values), tf.constant(steps), _tensors(metrics)
    )
    np.testing.assert_allclose(few, exact, rtol=1e-12)
