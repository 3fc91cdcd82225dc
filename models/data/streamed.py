"""Batches of a split that is too large for memory, read anew every epoch.

An epoch's order: the files permuted, 16 of them read in turns, and windows
of consecutive records permuted. All three depend on (seed, epoch) alone.
Departure from a uniform permutation: a record moves within its window; TFDS
has shuffled the records over the files when it prepared them.
"""

from __future__ import annotations

import tensorflow as tf

from models.data import order
from models.data.in_memory import to_unit_range
from models.data.records import Split

_OPEN_FILES = 16
_BLOCK = 16  # records that are read from a file before the next one's turn


class Streamed:
    """A split that is read from its files.

    Args:
      split: what to read.
      window: number of consecutive records that are permuted; all of them,
        still encoded, are in memory at once.
    """

    def __init__(self, split: Split, window: int = 4096):
        self.split = split
        self.window = window

    def _records(self, files: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(_OPEN_FILES, len(self.split.files)),
            block_length=_BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _decode(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, labels = self.split.parse(record[tf.newaxis])
        return to_unit_range(self.split.decode(encoded[0])), labels[0]

    def train(
        self, batch_size: int, rank: int, size: int, seed: int, start_epoch: int
    ) -> tf.data.Dataset:
        """See `ImageClassification.train`."""
        steps = order.steps_per_epoch(
            self.split.num_examples, batch_size, size
        )

        def one_epoch(epoch):
            files = order.shuffle(
                tf.constant(self.split.files), seed, epoch
            )

            def permute(window, records):
                # The files took (seed, epoch); windows count from 1 below it.
                records = order.shuffle(records, seed, epoch, window + 1)
                return tf.data.Dataset.from_tensor_slices(records)

            return (
                self._records(files)
                .batch(self.window)
                .enumerate()
                .flat_map(permute)
                .shard(size, rank)
                .take(steps * batch_size)
            )

        return (
            order.epochs(start_epoch)
            .flat_map(one_epoch)
            .map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def test(self, batch_size: int, rank: int, size: int) -> tf.data.Dataset:
        """See `ImageClassification.test`."""
        return (
            self._records(tf.constant(self.split.files))
            .shard(size, rank)
            .map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch_size)
            .prefetch(tf.data.AUTOTUNE)
        )
