"""Run by test_parallel.py in every worker: the collectives themselves."""

import numpy as np
import pytest
import tensorflow as tf

from tf_terngrad import collectives

RANK, SIZE = collectives.rank(), collectives.size()
RANKS = list(range(SIZE))


def _call(kind, workers, x, name):
    if kind == "gather":
        return workers.gather(x, name)
    if kind == "sum_all":
        return workers.sum_all([x, x], name)[1]
    return getattr(workers, kind)(x, name)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(
    "kind, expected",
    [
        ("max", [3.0]),
        ("sum", [3.0 * SIZE]),
        ("sum_all", [3.0 * SIZE]),
        ("gather", [3.0] * SIZE),
    ],
)
def test_constant_input(kind, expected, in_graph):
    # Grappler would fold a collective of a constant, and count one worker.
    workers = collectives.Workers()

    def call():
        return _call(kind, workers, tf.constant([3.0]), f"const.{kind}")

    if in_graph:
        call = tf.function(call, autograph=False)
    for _ in range(2):
        np.testing.assert_array_equal(call(), expected)


@pytest.mark.parametrize("kind", ["max", "sum", "sum_all", "gather"])
@pytest.mark.parametrize("shape", [(1,), ()])
def test_constant_input_on_one_worker_only(kind, shape):
    # Folded, worker 0 would take part once and the others three times.
    if kind == "gather" and not shape:
        pytest.skip("gathers vectors")
    workers = collectives.Workers()
    variable = tf.Variable(tf.fill(shape, 2.0))

    @tf.function(autograph=False)
    def call():
        x = tf.fill(shape, 2.0) if RANK == 0 else variable.read_value()
        return _call(kind, workers, x, f"one.{kind}.{len(shape)}") * 1.0

    expected = {"max": 2.0, "gather": [2.0] * SIZE}.get(kind, 2.0 * SIZE)
    for _ in range(3):
        np.testing.assert_array_equal(call(), expected)
    assert call().shape == ((SIZE,) if kind == "gather" else shape)


def test_names_do_not_depend_on_traces_or_scopes():
    # Worker 0 traces more often, and elsewhere, than the others.
    workers = collectives.Workers()

    def call(x):
        return workers.sum(x, "traces")

    if RANK == 0:
        # Traced, never run.
        tf.function(call, autograph=False).get_concrete_function(
            tf.TensorSpec([1])
        )

    @tf.function(autograph=False)
    def outer(x):
        with tf.name_scope(f"scope{RANK}"):
            return call(x)

    np.testing.assert_array_equal(outer(tf.ones([1])), [SIZE])


@pytest.mark.parametrize("value", [2**62, -(2**63), -1])
def test_integer_sums_wrap(value):
    total = collectives.Workers().sum(tf.constant([value], tf.int64), "wrap")
    expected = (value * SIZE + 2**63) % 2**64 - 2**63
    assert int(total[0]) == expected


def test_gather_of_different_lengths():
    gathered = collectives.Workers().gather(
        tf.fill([RANK], float(RANK)), "lengths"
    )
    np.testing.assert_array_equal(gathered, np.repeat(RANKS, RANKS))


def test_objects():
    assert collectives.allgather_object({"rank": RANK}, "o") == [
        {"rank": r} for r in RANKS
    ]
    assert collectives.broadcast_object(f"from {RANK}", SIZE - 1) == (
        f"from {SIZE - 1}"
    )
    collectives.barrier()


def test_broadcast_variables():
    variables = [
        tf.Variable(tf.fill([2], float(RANK))),
        tf.Variable(RANK, dtype=tf.int64),
        tf.Variable(tf.zeros([0])),
    ]
    collectives.broadcast_variables(variables, root=SIZE - 1)
    np.testing.assert_array_equal(variables[0], [SIZE - 1.0] * 2)
    assert int(variables[1]) == SIZE - 1


def test_workers():
    workers = collectives.Workers()
    assert (workers.rank, workers.size) == (RANK, SIZE)
    assert collectives.local_rank() == RANK
    assert collectives.local_size() == SIZE
