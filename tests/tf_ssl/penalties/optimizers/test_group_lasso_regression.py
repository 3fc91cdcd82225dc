"""GroupLassoOptimizer on a group Lasso whose solution is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.penalties.optimizers import proximal_reference
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.structures.structure import Slice, Structure

optimizers = keras.optimizers
RNG = np.random.default_rng(3)
UNITS, ROWS, COLUMNS, SAMPLES = 12, 3, 2, 120
SIZE = UNITS * (ROWS + COLUMNS)
STRENGTH = 0.3


def _problem():
    """1/2 w'Hw - b'w, of a regression on 5 of 12 groups of 5 inputs."""
    inputs = RNG.normal(size=(SAMPLES, SIZE))
    truth = np.zeros((UNITS, ROWS + COLUMNS))
    truth[:5] = RNG.normal(size=(5, ROWS + COLUMNS))
    targets = inputs @ truth.ravel() + 0.5 * RNG.normal(size=SAMPLES)
    return inputs.T @ inputs / SAMPLES, inputs.T @ targets / SAMPLES


HESSIAN, LINEAR = _problem()
GROUPS = np.arange(SIZE).reshape(UNITS, -1)


def _solution(strengths):
    return proximal_reference.minimize(HESSIAN, LINEAR, GROUPS, strengths)


class Problem:
    """The groups as columns of one variable and rows of another."""

    def __init__(self, seed=0):
        start = 0.1 * np.random.default_rng(seed).normal(size=(UNITS, 5))
        self.kernel = keras.Variable(
            start[:, :ROWS].T, dtype="float64", name="kernel"
        )
        self.consumer = keras.Variable(
            start[:, ROWS:], dtype="float64", name="consumer"
        )
        self.variables = [self.kernel, self.consumer]
        self.structure = Structure(
            "layer/units",
            UNITS,
            (
                Slice(self.kernel, "out", np.arange(UNITS)[None]),
                Slice(self.consumer, "in", np.arange(UNITS)[:, None]),
            ),
            roles=("out", "in"),
        )

    def minimize(self, optimizer, steps):
        optimizer.build(self.variables)

        def step(number):
            w = tf.concat(
                [tf.transpose(self.kernel.value), self.consumer.value], 1
            )
            gradient = tf.linalg.matvec(HESSIAN, tf.reshape(w, [-1])) - LINEAR
            gradient = tf.reshape(gradient, [UNITS, ROWS + COLUMNS])
            optimizer.apply(
                [tf.transpose(gradient[:, :ROWS]), gradient[:, ROWS:]],
                self.variables,
            )
            return [number + 1]

        @tf.function
        def run():
            tf.while_loop(lambda i: i < steps, step, [0])

        run()
        return np.concatenate([self.kernel.numpy().T, self.consumer], 1)


CASES = {
    "sgd": (lambda: optimizers.SGD(0.3), 200),
    "momentum": (lambda: optimizers.SGD(0.1, momentum=0.9), 400),
    "nesterov": (lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), 300),
    "adam": (lambda: optimizers.Adam(0.05), 500),
    "nadam": (lambda: optimizers.Nadam(0.05), 600),
    "adamax": (lambda: optimizers.Adamax(0.05), 900),
    "rmsprop": (lambda: optimizers.RMSprop(0.03, epsilon=0.1), 500),
    "adagrad": (lambda: optimizers.Adagrad(0.5), 400),
}


def _assert_solved(w, strengths, atol=1e-6):
    expected = _solution(strengths).reshape(UNITS, -1)
    dead = np.linalg.norm(expected, axis=1) == 0
    assert 0 < dead.sum() < UNITS
    np.testing.assert_array_equal((w == 0).all(1), dead)
    np.testing.assert_allclose(w, expected, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_proximal_finds_the_solution(name):
    problem = Problem()
    make, steps = CASES[name]
    optimizer = GroupLassoOptimizer(
        make(), [problem.structure], STRENGTH, update="proximal"
    )
    w = problem.minimize(optimizer, steps)
    _assert_solved(w, [STRENGTH] * UNITS)
    norms = np.linalg.norm(w, axis=1)
    assert float(optimizer.group_lasso) == pytest.approx(
        STRENGTH * norms.sum(), rel=1e-5
    )
    assert float(optimizer.penalty()) == pytest.approx(
        STRENGTH * norms.sum(), rel=1e-5
    )


def test_the_problem_tells_naive_forms_apart(monkeypatch):
    """Momentum that is not set, or Adam's moments in another metric, fail."""
    from tf_ssl.penalties.optimizers import inner_metric

    problem = Problem()
    euclidean = GroupLassoOptimizer(
        optimizers.Adam(0.05),
        [problem.structure],
        STRENGTH,
        update="proximal",
        metric="euclidean",
    )
    with pytest.raises(AssertionError):
        _assert_solved(problem.minimize(euclidean, 500), [STRENGTH] * UNITS)

    monkeypatch.setattr(
        inner_metric,
        "finish",
        lambda o, variable, after, t: variable.assign(after),
    )
    problem = Problem()
    naive = GroupLassoOptimizer(
        optimizers.SGD(0.1, momentum=0.9),
        [problem.structure],
        STRENGTH,
        update="proximal",
    )
    w = problem.minimize(naive, 400)
    with pytest.raises(AssertionError):
        _assert_solved(w, [STRENGTH] * UNITS)
    # What acts is strength * (1 - momentum).
    expected = _solution([STRENGTH * (1 - np.float32(0.9))] * UNITS)
    np.testing.assert_allclose(w.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "scale, factor", [("sqrt", 5**0.5), ("inv_sqrt", 5**-0.5)]
)
def test_scale(scale, factor):
    problem = Problem()
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(0.3),
        [problem.structure],
        STRENGTH / factor,
        update="proximal",
        scale=scale,
    )
    _assert_solved(problem.minimize(optimizer, 200), [STRENGTH] * UNITS)


def test_roles_choose_what_counts():
    problem = Problem()
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(0.3),
        [problem.structure],
        5.0,
        update="proximal",
        roles=("in",),
    )
    w = problem.minimize(optimizer, 300)
    assert (w[:, ROWS:] == 0).all() and (w[:, :ROWS] != 0).all()


def test_subgradient_and_threshold_come_near_the_solution():
    problem = Problem()
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                [300], [0.1, 0.01]
            )
        ),
        [problem.structure],
        STRENGTH,
        update="subgradient",
        threshold=5e-3,
        threshold_by="group",
    )
    w = problem.minimize(optimizer, 1200)
    _assert_solved(w, [STRENGTH] * UNITS, atol=1e-3)


@pytest.mark.parametrize("update", ["subgradient", "proximal"])
def test_one_step_of_sgd(update):
    """To the bit of the formulas; a zero group has sub-gradient 0."""
    problem = Problem()
    problem.structure.zero([4])
    kernel, consumer = problem.kernel.numpy(), problem.consumer.numpy()
    norms = problem.structure.norms()
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(0.25),
        [problem.structure],
        0.5,
        update=update,
        threshold=0,
    )
    zeros = [tf.zeros(v.shape, tf.float64) for v in problem.variables]
    optimizer.apply(zeros, problem.variables)
    if update == "subgradient":
        factor = 1 - 0.125 / np.where(norms == 0, np.inf, norms)
        assert float(optimizer.group_lasso) == pytest.approx(0.5 * norms.sum())
    else:
        factor = np.maximum(0, 1 - 0.125 / np.where(norms == 0, 1, norms))
        assert 0 < (factor == 0).sum() < UNITS
    np.testing.assert_allclose(problem.kernel, kernel * factor, atol=1e-14)
    np.testing.assert_allclose(
        problem.consumer, consumer * factor[:, None], atol=1e-14
    )


def test_overlapping_groups():
    """Rows and columns of one kernel: refused, or by Dykstra's algorithm."""
    values = np.random.default_rng(3).normal(size=(6, 6))
    variable = keras.Variable(values, dtype="float64", name="recurrent")
    units = np.arange(6)
    structure = Structure(
        "rnn/units",
        6,
        (
            Slice(variable, "out", units[None]),
            Slice(variable, "in", units[:, None]),
        ),
        roles=("out", "in"),
    )
    refused = GroupLassoOptimizer(
        optimizers.SGD(1.0), [structure], 1.0, roles=("out", "in")
    )
    with pytest.raises(ValueError) as error:
        refused.build([variable])
    assert str(error.value) == (
        "update='proximal' takes groups that share no weights. Units of "
        "structure rnn/units share weights of the variable recurrent. Leave "
        "one out (strength={pattern: ...}), or pass other roles, "
        "overlap='dykstra' or update='subgradient'."
    )
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(1.0),
        [structure],
        2.0,
        update="proximal",
        overlap="dykstra",
    )
    # With f = 1/2 ||w - y||^2 one step from anywhere is the solution.
    apply = tf.function(
        lambda: optimizer.apply([variable - values], [variable])
    )
    optimizer.build([variable])
    apply()
    numbers = np.arange(36).reshape(6, 6)
    members = [np.unique(np.r_[numbers[:, k], numbers[k]]) for k in range(6)]
    expected = proximal_reference.dykstra(
        values.ravel(), np.ones(36), [2.0] * 6, members
    )
    np.testing.assert_allclose(variable, expected.reshape(6, 6), atol=1e-9)
    dead = structure.norms() == 0
    assert 0 < dead.sum() < 6


@pytest.mark.parametrize("double_count", [False, True])
def test_subgradient_of_overlapping_groups(double_count):
    """Against the gradient of the penalty by TensorFlow."""
    variable = keras.Variable(
        RNG.normal(size=(4, 8)), dtype="float64", name="w"
    )
    units = np.arange(4)
    structure = Structure(
        "rnn/units",
        4,
        (
            Slice(variable, "out", np.tile(units, 2)[None]),
            Slice(variable, "in", units[:, None]),
        ),
        roles=("out", "in"),
    )
    value = variable.numpy()
    with tf.GradientTape() as tape:
        w = variable.value
        squares = tf.square(w)
        columns = tf.reduce_sum(squares[:, :4] + squares[:, 4:], 0)
        sums = columns + tf.reduce_sum(squares, 1)
        if not double_count:
            sums -= tf.linalg.diag_part(squares[:, :4])
            sums -= tf.linalg.diag_part(squares[:, 4:])
        penalty = 0.7 * tf.reduce_sum(tf.sqrt(sums))
    gradient = tape.gradient(penalty, w)
    optimizer = GroupLassoOptimizer(
        optimizers.SGD(1.0),
        [structure],
        0.7,
        update="subgradient",
        threshold=0,
        double_count=double_count,
    )
    optimizer.apply([tf.zeros_like(w)], [variable])
    np.testing.assert_allclose(variable, value - gradient, rtol=1e-12)
    assert float(optimizer.group_lasso) == pytest.approx(float(penalty))
