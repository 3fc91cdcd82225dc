import re

import numpy as np
import pytest
import tensorflow as tf

from models.data import order


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
def test_shuffle_is_a_permutation(n):
    permuted = order.shuffle(tf.range(n), 3, 5).numpy()
    np.testing.assert_array_equal(np.sort(permuted), np.arange(n))


def test_shuffle_depends_on_seed_and_counters_alone():
    def permuted(*key):
        return tuple(order.shuffle(tf.range(50), *key).numpy())

    tf.random.set_seed(1)
    first = permuted(0, 0)
    tf.random.set_seed(2)
    assert permuted(0, 0) == first
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (0, 0, 1), (0, 1, 0)]
    assert len({permuted(*key) for key in keys}) == len(keys)


def test_shuffle_moves_every_element_everywhere():
    # 600 permutations of 6: each (element, place) expects 100, sigma 9.1; five
    # sigma over 36 cells fail by chance in 2e-5 of all seeds, and this one
    # is fixed.
    @tf.function
    def permutations(epochs):
        return tf.map_fn(lambda e: order.shuffle(tf.range(6), 0, e), epochs)

    counts = np.zeros((6, 6))
    for permuted in permutations(tf.range(600)).numpy():
        counts[np.arange(6), permuted] += 1
    assert np.abs(counts - 100).max() < 5 * 9.1


def test_of_ranks():
    step = tf.reshape(tf.range(6), [2, 3])  # batch 2, 3 workers
    assert order.of_ranks(step, 1, 2).numpy().tolist() == [1, 4, 2, 5]


@pytest.mark.parametrize(
    "num_examples, batch_size, size, steps",
    [(60000, 32, 2, 937), (60000, 64, 1, 937), (64, 32, 2, 1), (7, 1, 3, 2)],
)
def test_steps_per_epoch(num_examples, batch_size, size, steps):
    assert order.steps_per_epoch(num_examples, batch_size, size) == steps


@pytest.mark.parametrize("batch_size", [0, -1, 51])
def test_steps_per_epoch_needs_one_step(batch_size):
    message = (
        "Invalid value for argument batch_size. Expected 1 to 50 for 100 "
        f"examples on 2 worker(s). Received: batch_size={batch_size}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        order.steps_per_epoch(100, batch_size, 2)


@pytest.mark.parametrize("rank, size", [(-1, 2), (2, 2), (0, 0)])
def test_check_worker(rank, size):
    message = (
        "Invalid value for argument rank. Expected 0 <= rank < size. "
        f"Received: rank={rank}, size={size}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        order.check_worker(rank, size)


def test_draws_depend_on_seed_and_epoch_alone():
    tf.random.set_seed(1)
    first = order.draws(50, 3, 0, 0).numpy()
    tf.random.set_seed(2)
    np.testing.assert_array_equal(order.draws(50, 3, 0, 0), first)
    others = [order.draws(50, 3, *key).numpy() for key in [(0, 1), (1, 0)]]
    numbers = np.concatenate([first, *others]).ravel()
    assert len(np.unique(numbers)) == len(numbers)


def test_draws_are_uniform():
    # 20,000 numbers: 2000 are expected in each tenth, sigma 42; five
    # sigma over ten tenths fail by chance in 6e-6 of all seeds, and this one
    # is fixed.
    numbers = order.draws(5000, 4, 7, 3).numpy()
    assert numbers.shape == (5000, 4)
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert np.abs(counts - 2000).max() < 5 * 42


def test_no_draws():
    assert order.draws(5, 0, 0, 0).shape == (5, 0)
