"""Batches of a split that is decoded once and kept in memory as uint8."""

from __future__ import annotations

import functools

import tensorflow as tf

from models.data import augment, order
from models.data.records import Split


class InMemory:
    """A split in memory; a batch costs one gather and its augmentation.

    Nothing is read before `train` or `test` is called.

    Args:
      split: what to read.
      augmentation: what happens to the images of a batch.
    """

    def __init__(self, split: Split, augmentation: augment.Augmentation):
        self.split = split
        self.augmentation = augmentation

    @functools.cached_property
    def _examples(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("cpu"):
            return self.split.read()

    def train(
        self,
        batch_size: int,
        rank: int,
        size: int,
        seed: int,
        start_epoch: int,
        num_ranks: int = 1,
    ) -> tf.data.Dataset:
        """See `ImageClassification.train`."""
        num_examples = self.split.num_examples
        steps = order.steps_per_epoch(num_examples, batch_size, size)

        def one_epoch(epoch):
            everyone = order.shuffle(tf.range(num_examples), seed, epoch)
            used = everyone[: steps * batch_size * size]
            # [steps * batch * size] -> [steps, batch, size]
            used = tf.reshape(used, [steps, batch_size, size])
            draws = order.draws(
                num_examples, self.augmentation.num_draws, seed, epoch
            )

            def of_ranks(step):
                mine = order.of_ranks(step, rank, num_ranks)
                return mine, tf.gather(draws, mine)

            return tf.data.Dataset.from_tensor_slices(used).map(of_ranks)

        # Read here: within `gather`, the reading would become part of it.
        images, labels = self._examples

        def gather(positions, draws):
            batch = self.augmentation.train(tf.gather(images, positions), draws)
            return batch, tf.gather(labels, positions)

        return (
            order.epochs(start_epoch)
            .flat_map(one_epoch)
            .map(gather, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(4)
        )

    def test(self, batch_size: int, rank: int, size: int) -> tf.data.Dataset:
        """See `ImageClassification.test`."""
        images, labels = self._examples

        def gather(positions):
            batch = self.augmentation.test(tf.gather(images, positions))
            return batch, tf.gather(labels, positions)

        mine = tf.range(rank, self.split.num_examples, size)
        batches = tf.data.Dataset.from_tensor_slices(mine).batch(batch_size)
        return batches.map(gather).prefetch(1)
