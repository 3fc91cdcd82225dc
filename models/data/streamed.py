"""Batches of a split that is too large for memory, read anew every epoch.

An epoch's order: the files permuted, 16 of them read in turns, and windows
of consecutive records permuted. All three depend on (seed, epoch) alone.
Departure from a uniform permutation: a record moves within its window; TFDS
has shuffled the records over the files when it prepared them.
"""

from __future__ import annotations

import tensorflow as tf

from models.data import augment, order
from models.data.records import Split

_OPEN_FILES = 16


class Streamed:
    """A split that is read from its files.

    Args:
      split: what to read.
      augmentation: what happens to the images of a batch.
      window: number of consecutive records that are permuted; all of them,
        still encoded, are in memory at once.
    """

    def __init__(
        self,
        split: Split,
        augmentation: augment.Augmentation,
        window: int = 4096,
    ):
        self.split = split
        self.augmentation = augmentation
        self.window = window

    def _decode(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, labels = self.split.parse(record[tf.newaxis])
        return self.split.decode(encoded[0]), labels[0]

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
        steps = order.steps_per_epoch(self.split.num_examples, batch_size, size)

        def one_epoch(epoch):
            files = order.shuffle(tf.constant(self.split.files), seed, epoch)

            def permute(window, records):
                # The files took (seed, epoch); windows count from 1 below it.
                records = order.shuffle(records, seed, epoch, window + 1)
                return tf.data.Dataset.from_tensor_slices(records)

            # Pairs of a place in the epoch's order and a record.
            records = (
                self.split.records(files, _OPEN_FILES)
                .batch(self.window)
                .enumerate()
                .flat_map(permute)
                .enumerate()
            )
            draws = order.draws(
                self.split.num_examples,
                self.augmentation.num_draws,
                seed,
                epoch,
            )

            def of_ranks(*step):
                mine = tuple(
                    order.of_ranks(
                        tf.reshape(each, [batch_size, size]), rank, num_ranks
                    )
                    for each in step
                )
                return tf.data.Dataset.from_tensor_slices(mine)

            if num_ranks == 1:
                records = records.shard(size, rank).take(steps * batch_size)
            else:
                records = (
                    records.batch(batch_size * size, drop_remainder=True)
                    .take(steps)
                    .flat_map(of_ranks)
                )
            return records.map(
                lambda place, record: (record, tf.gather(draws, place))
            )

        def decode(record, draws):
            return *self._decode(record), draws

        def transform(images, labels, draws):
            return self.augmentation.train(images, draws), labels

        return (
            order.epochs(start_epoch)
            .flat_map(one_epoch)
            .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(num_ranks * batch_size, drop_remainder=True)
            .map(transform, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def test(self, batch_size: int, rank: int, size: int) -> tf.data.Dataset:
        """See `ImageClassification.test`."""

        def transform(images, labels):
            return self.augmentation.test(images), labels

        return (
            self.split.records(tf.constant(self.split.files), _OPEN_FILES)
            .shard(size, rank)
            .map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size)
            .map(transform)
            .prefetch(tf.data.AUTOTUNE)
        )
