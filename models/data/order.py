"""Which worker sees which example when.

Every epoch has one order of all examples, a permutation that only the seed
and the epoch determine. Worker r of N takes its elements r, r + N, r + 2N
and so on: workers never share an example, and all have the same number of
batches, whatever remains being left out of that epoch.
"""

from __future__ import annotations

import tensorflow as tf


def steps_per_epoch(num_examples: int, batch_size: int, size: int = 1) -> int:
    """Returns `num_examples // (batch_size * size)`.

    Args:
      num_examples: of the training split.
      batch_size: examples per worker and step.
      size: number of workers.

    Raises:
      ValueError: not one step is possible.
    """
    steps = num_examples // (batch_size * size) if batch_size > 0 else 0
    if steps < 1:
        raise ValueError(
            "Invalid value for argument batch_size. Expected 1 to "
            f"{num_examples // size} for {num_examples} examples on {size} "
            f"worker(s). Received: batch_size={batch_size}"
        )
    return steps


def check_worker(rank: int, size: int) -> None:
    """Raises ValueError unless 0 <= rank < size."""
    if not 0 <= rank < size:
        raise ValueError(
            "Invalid value for argument rank. Expected 0 <= rank < size. "
            f"Received: rank={rank}, size={size}"
        )


def of_ranks(step: tf.Tensor, rank: int, num_ranks: int) -> tf.Tensor:
    """Takes what some workers have of one step.

    Args:
      step: tensor `[batch, size]`, a step of all workers in the epoch's
        order.
      rank: the first of them.
      num_ranks: how many, at least 1.

    Returns:
      `[num_ranks * batch]`, one worker's batch after the other.
    """
    # [batch, ranks] -> [ranks, batch] -> [ranks * batch]
    mine = tf.transpose(step[:, rank : rank + num_ranks])
    return tf.reshape(mine, [-1])


def shuffle(values: tf.Tensor, seed: int, *counters: tf.Tensor) -> tf.Tensor:
    """Permutes the first axis; only seed and counters determine how.

    `tf.random.set_seed` has no part in it, nor has the number of threads.

    Args:
      values: tensor `[n, ...]`.
      seed: non-negative integer.
      *counters: scalar integers, such as the epoch.
    """
    key = tf.stack([tf.constant(seed, tf.int64), tf.constant(0, tf.int64)])
    for counter in counters:
        key = tf.random.experimental.stateless_fold_in(
            key, tf.cast(counter, tf.int64), alg="philox"
        )
    return tf.random.experimental.stateless_shuffle(
        values, seed=key, alg="philox"
    )


def epochs(start_epoch: int = 0) -> tf.data.Dataset:
    """Counts epochs from `start_epoch` on, without end."""
    return tf.data.Dataset.range(start_epoch, tf.int64.max)


def draws(
    num_examples: int, count: int, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Draws uniform numbers in [0, 1) for every example of an epoch.

    Only the arguments determine them, whatever the batch, the worker and the
    number of threads.

    Args:
      num_examples: of the training split.
      count: numbers per example.
      seed: non-negative integer.
      epoch: scalar integer.

    Returns:
      float32 `[num_examples, count]`.
    """
    # The second word keeps these numbers apart from those of `shuffle`.
    key = tf.stack([tf.constant(seed, tf.int64), tf.constant(1, tf.int64)])
    key = tf.random.experimental.stateless_fold_in(
        key, tf.cast(epoch, tf.int64), alg="philox"
    )
    return tf.random.stateless_uniform([num_examples, count], key, alg="philox")
