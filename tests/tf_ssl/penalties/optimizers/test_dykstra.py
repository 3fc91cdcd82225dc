"""Proximal steps over groups that overlap."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.penalties.optimizers import proximal_reference
from tf_ssl.penalties.optimizers import dykstra, proximal
from tf_ssl.penalties.optimizers.segments import Groups, Segment
from tf_ssl.structures.structure import Slice

RNG = np.random.default_rng(2)
SIZE = 4


def _recurrent():
    """Row k and column k of a square kernel, and a column of an input one."""
    square = keras.Variable(RNG.normal(size=(SIZE, SIZE)), name="square")
    kernel = keras.Variable(RNG.normal(size=(2, SIZE)), name="kernel")
    units = np.arange(SIZE)
    slices = [
        Slice(square, "out", units[None]),
        Slice(square, "in", units[:, None]),
        Slice(kernel, "out", units[None]),
    ]
    return Groups("rnn/units", slices, SIZE, [0, 0, 1])


SHAPES = {0: (SIZE, SIZE), 1: (2, SIZE)}


@pytest.mark.parametrize("with_metric", [False, True])
def test_against_one_group_after_another(with_metric):
    groups = _recurrent()
    y = {p: RNG.normal(size=s) for p, s in SHAPES.items()}
    d = {
        p: RNG.uniform(0.3, 1, s) if with_metric else np.ones(s)
        for p, s in SHAPES.items()
    }
    steps = np.array([0.2, 0.5, 1.0, 4.0])
    multiplicities = {
        p: tf.constant(c, tf.float64)
        for p, c in dykstra.multiplicity([groups], SHAPES).items()
    }
    after, taken, norms = tf.function(dykstra.dykstra_step)(
        [groups],
        {p: tf.constant(v) for p, v in y.items()},
        [tf.constant(steps)],
        {p: tf.constant(v) for p, v in d.items()} if with_metric else None,
        multiplicities,
    )
    numbers = np.arange(SIZE * SIZE + 2 * SIZE)
    square, kernel = (
        numbers[: SIZE**2].reshape(SIZE, SIZE),
        numbers[SIZE**2 :].reshape(2, SIZE),
    )
    members = [
        np.unique(np.concatenate([square[:, k], square[k], kernel[:, k]]))
        for k in range(SIZE)
    ]
    expected = proximal_reference.dykstra(
        np.concatenate([y[0].ravel(), y[1].ravel()]),
        np.concatenate([d[0].ravel(), d[1].ravel()]),
        steps,
        members,
    )
    x = np.concatenate([after[0].numpy().ravel(), after[1].numpy().ravel()])
    np.testing.assert_allclose(x, expected, atol=1e-9)
    dead = [not x[g].any() for g in members]
    assert dead == [np.abs(expected[g]).max() < 1e-9 for g in members]
    assert 0 < sum(dead) < SIZE
    np.testing.assert_allclose(
        norms[0], [np.linalg.norm(x[g]) for g in members], atol=1e-12
    )
    np.testing.assert_allclose(taken[0], y[0] - after[0], atol=1e-12)


def test_disjoint_groups_take_the_plain_step():
    groups = Groups("a", [], 3, [])
    groups.segments = [Segment(0, np.arange(3)[None], 3)]
    values = {0: tf.constant(RNG.normal(size=(5, 3)))}
    metrics = {0: tf.constant(RNG.uniform(0.1, 1, (5, 3)))}
    steps = [tf.constant([0.1, 0.5, 9.0], tf.float64)]
    one = {0: tf.ones([5, 3], tf.float64)}
    after, _, _ = dykstra.dykstra_step([groups], values, steps, metrics, one)
    plain, _, _ = proximal.proximal_step([groups], values, steps, metrics)
    np.testing.assert_allclose(after[0], plain[0], rtol=1e-12)
    assert (after[0].numpy()[:, 2] == 0).all()


def test_overlaps_are_found():
    assert dykstra.overlaps([_recurrent()], SHAPES) == (
        0,
        "rnn/units",
        "rnn/units",
    )
    out, into = Groups("a", [], 4, []), Groups("b", [], 2, [])
    out.segments = [Segment(1, np.arange(4)[None], 4)]
    into.segments = [Segment(1, np.arange(2)[:, None], 2)]
    assert dykstra.overlaps([out, into], SHAPES) == (1, "a", "b")
    into.segments = [Segment(0, np.arange(4)[:, None], 4)]
    assert dykstra.overlaps([out, into], SHAPES) is None
    out.segments = [Segment(1, np.array([[0, 1, -1, -1]]), 4)]
    into.segments = [Segment(1, np.array([[-1, -1, 0, 1]]), 2)]
    assert dykstra.overlaps([out, into], SHAPES) is None


def test_multiplicity():
    count = dykstra.multiplicity([_recurrent()], SHAPES)
    # The diagonal is in one group, by its row and by its column.
    np.testing.assert_array_equal(count[0], 2 - np.eye(SIZE, dtype=int))
    np.testing.assert_array_equal(count[1], np.ones((2, SIZE)))
