"""An image classification set as batches for every worker."""

from __future__ import annotations

import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from models.data import order, prepared
from models.data.in_memory import InMemory
from models.data.records import Split, split_of
from models.data.streamed import Streamed

# Decoded sets below this stay in memory.
_IN_MEMORY_BYTES = 2 * 2**30


class ImageClassification:
    """A training and a test split of images with labels.

    Images are float32 in [0, 1] (the stored uint8 divided by 255),
    `[batch, height, width, channels]`; labels int64, `[batch]`.

    Attributes:
      name: TFDS's name and version.
      num_classes: number of labels.
      image_shape: height, width, channels.
      num_train: number of training examples.
      num_test: number of test examples.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        train: Split,
        test: Split,
        in_memory_bytes: int = _IN_MEMORY_BYTES,
    ):
        self.name = name
        self.num_classes = num_classes
        self.image_shape = train.image_shape
        self.num_train = train.num_examples
        self.num_test = test.num_examples
        self._train, self._test = (
            InMemory(split)
            if split.decoded_bytes <= in_memory_bytes
            else Streamed(split)
            for split in (train, test)
        )

    def steps_per_epoch(self, batch_size: int, size: int = 1) -> int:
        """Returns `num_train // (batch_size * size)`, the same on all workers.

        Raises:
          ValueError: not one step is possible.
        """
        return order.steps_per_epoch(self.num_train, batch_size, size)

    def test_examples(self, rank: int = 0, size: int = 1) -> int:
        """Returns how many test examples this worker has."""
        order.check_worker(rank, size)
        return len(range(rank, self.num_test, size))

    def train(
        self,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        seed: int = 0,
        start_epoch: int = 0,
    ) -> tf.data.Dataset:
        """Returns this worker's batches, epoch after epoch without end.

        Every epoch has a new order, which (seed, epoch) alone determines, so
        a run that starts again at an epoch sees the batches that it would
        have seen. Workers are disjoint within an epoch; each has exactly
        `steps_per_epoch(batch_size, size)` batches of it.

        Args:
          batch_size: examples per worker and step, at least 1.
          rank: which worker, in [0, size).
          size: number of workers.
          seed: of the order, non-negative.
          start_epoch: epoch of the first batch, from 0.

        Raises:
          ValueError: `batch_size` or `rank` does not fit.
        """
        order.check_worker(rank, size)
        self.steps_per_epoch(batch_size, size)
        return self._train.train(batch_size, rank, size, seed, start_epoch)

    def test(
        self, batch_size: int, rank: int = 0, size: int = 1
    ) -> tf.data.Dataset:
        """Returns every size-th test example from `rank` on, once, in order.

        The last batch may be smaller; workers may differ by one example
        (`test_examples`).

        Args:
          batch_size: examples per batch, at least 1.
          rank: which worker, in [0, size).
          size: number of workers.

        Raises:
          ValueError: `rank` does not fit.
        """
        order.check_worker(rank, size)
        return self._test.test(batch_size, rank, size)


def load(
    name: str,
    data_dir: str | pathlib.Path | None = None,
    image_size: tuple[int, int] | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    in_memory_bytes: int = _IN_MEMORY_BYTES,
) -> ImageClassification:
    """Opens a prepared TFDS set of images (`image`) with labels (`label`).

    Nothing is downloaded. A split is read when its batches are asked for.

    Example:
    >>> load("mnist").image_shape
    (28, 28, 1)

    Args:
      name: TFDS's name, such as "mnist", "name/config" or "name:1.2.3".
      data_dir: TFDS's data folder; None is the repository's own `data/`.
      image_size: height and width that images are resized to; needed if
        those of the set differ. None keeps them.
      train_split: name of the training split.
      test_split: name of the test split; None is "test", or "validation"
        where there is no "test".
      in_memory_bytes: splits that are larger than this when decoded are read
        from their files every epoch, others once.

    Raises:
      ValueError: no such set or split, or no classification set of images.
      FileNotFoundError: `data_dir` does not hold the set.
    """
    folder = prepared.find(name, data_dir)
    builder = tfds.builder_from_directory(folder)
    if test_split is None:
        test_split = "test" if "test" in builder.info.splits else "validation"
    return ImageClassification(
        name=f"{name.split(':')[0]}:{folder.name}",
        train=split_of(builder, train_split, image_size),
        test=split_of(builder, test_split, image_size),
        # After split_of, which checks that there are labels.
        num_classes=builder.info.features["label"].num_classes,
        in_memory_bytes=in_memory_bytes,
    )
