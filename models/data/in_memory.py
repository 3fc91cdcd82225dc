"""Batches of a split that is decoded once and kept in memory as uint8."""

from __future__ import annotations

import functools

import tensorflow as tf

from models.data import order
from models.data.records import Split


class InMemory:
    """A split in memory; a batch costs one gather and one cast.

    Nothing is read before `train` or `test` is called.
    """

    def __init__(self, split: Split):
        self.split = split

    @functools.cached_property
    def _examples(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device("cpu"):
            return self.split.read()

    def _gather(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Turns batches of positions into batches of examples."""
        # Read here: within `gather`, the reading would become part of it.
        images, labels = self._examples

        def gather(positions):
            return (
                to_unit_range(tf.gather(images, positions)),
                tf.gather(labels, positions),
            )

        return batches.map(gather)

    def train(
        self, batch_size: int, rank: int, size: int, seed: int, start_epoch: int
    ) -> tf.data.Dataset:
        """See `ImageClassification.train`."""
        num_examples = self.split.num_examples
        steps = order.steps_per_epoch(num_examples, batch_size, size)

        def one_epoch(epoch):
            everyone = order.shuffle(tf.range(num_examples), seed, epoch)
            mine = everyone[rank::size][: steps * batch_size]
            # [steps * batch] -> [steps, batch]
            mine = tf.reshape(mine, [steps, batch_size])
            return tf.data.Dataset.from_tensor_slices(mine)

        batches = order.epochs(start_epoch).flat_map(one_epoch)
        return self._gather(batches).prefetch(4)

    def test(self, batch_size: int, rank: int, size: int) -> tf.data.Dataset:
        """See `ImageClassification.test`."""
        mine = tf.range(rank, self.split.num_examples, size)
        batches = tf.data.Dataset.from_tensor_slices(mine).batch(batch_size)
        return self._gather(batches).prefetch(1)


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """Casts uint8 images to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0
