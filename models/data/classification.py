"""An image classification set as batches for every worker."""

from __future__ import annotations

import pathlib

import tensorflow as tf
import tensorflow_datasets as tfds

from models.data import augment as augmentations
from models.data import folders, order, prepared
from models.data.in_memory import InMemory
from models.data.records import Split, split_of
from models.data.streamed import Streamed

# Decoded sets below this stay in memory.
_IN_MEMORY_BYTES = 2 * 2**30

# Where the split "test" has no labels.
_TEST_SPLITS = {"imagenet2012": "validation"}


class ImageClassification:
    """A training and a test split of images with labels.

    Images are float32 `[batch, height, width, channels]`: in [0, 1] (the
    stored uint8 divided by 255), or as the augmentation leaves them; labels
    int64, `[batch]`.

    Attributes:
      name: TFDS's name and version, or of a folder of images.
      num_classes: number of labels.
      image_shape: height, width, channels of a batch's images.
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
        augmentation: augmentations.Augmentation | None = None,
    ):
        if augmentation is None:
            augmentation = augmentations.of("none")
        self.name = name
        self.num_classes = num_classes
        self.image_shape = (
            *(augmentation.image_size or train.image_shape[:2]),
            train.image_shape[-1],
        )
        self.num_train = train.num_examples
        self.num_test = test.num_examples
        self._train, self._test = (
            InMemory(split, augmentation)
            if split.decoded_bytes <= in_memory_bytes
            else Streamed(split, augmentation)
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
        num_ranks: int = 1,
    ) -> tf.data.Dataset:
        """Returns this worker's batches, epoch after epoch without end.

        Every epoch has a new order, which (seed, epoch) alone determines, as
        it does the augmentation, so a run that starts again at an epoch sees
        the batches that it would have seen. Workers are disjoint within an
        epoch; each has exactly `steps_per_epoch(batch_size, size)` batches of
        it.

        Args:
          batch_size: examples per worker and step, at least 1.
          rank: which worker, in [0, size).
          size: number of workers.
          seed: of the order, non-negative.
          start_epoch: epoch of the first batch, from 0.
          num_ranks: a batch is those of this many workers, `rank` and the
            ones after it, one after the other: `num_ranks * batch_size`
            examples.

        Raises:
          ValueError: `batch_size`, `rank` or `num_ranks` does not fit.
        """
        order.check_worker(rank, size)
        if not 1 <= num_ranks <= size - rank:
            raise ValueError(
                "Invalid value for argument num_ranks. Expected 1 to "
                f"{size - rank} for rank={rank}, size={size}. Received: "
                f"num_ranks={num_ranks}"
            )
        self.steps_per_epoch(batch_size, size)
        return self._train.train(
            batch_size, rank, size, seed, start_epoch, num_ranks
        )

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
    augment: str = "none",
) -> ImageClassification:
    """Opens a prepared TFDS set of images (`image`) with labels (`label`).

    Or a folder of images: `data_dir/train/<class>/*.jpg` and
    `data_dir/test/<class>/*.jpg` (see `folders`), with the name "folder", or
    the name of a TFDS set that `data_dir` does not hold.

    Nothing is downloaded. A split is read when its batches are asked for.

    Example:
    >>> load("mnist").image_shape
    (28, 28, 1)

    Args:
      name: TFDS's name, such as "mnist", "name/config" or "name:1.2.3"; or
        "folder".
      data_dir: TFDS's data folder; None is the repository's own `data/`. Or
        the folder of images.
      image_size: height and width of the images that the network sees. None
        is the size of the set's, or the augmentation's own; it is needed
        without augmentation if those of a TFDS set differ.
      train_split: name of the training split.
      test_split: name of the test split; None is "test", or "validation"
        where there is no "test" with labels.
      in_memory_bytes: splits that are larger than this when decoded are read
        from their files every epoch, others once.
      augment: crops, mirrors and normalizes images, see `augment.of`.

    Raises:
      ValueError: no such set or split, no classification set of images, no
        such augmentation, or "folder" without `data_dir`.
      FileNotFoundError: `data_dir` does not hold the set.
    """
    augmentation = augmentations.of(augment, image_size)
    stored_size = augmentation.stored_size
    if name == "folder" and data_dir is None:
        raise ValueError(
            "Dataset 'folder' needs data_dir, which holds train/<class>/*.jpg "
            "and test/<class>/*.jpg. Received: data_dir=None"
        )
    try:
        folder = None if name == "folder" else prepared.find(name, data_dir)
    except FileNotFoundError:
        if not folders.has_images(data_dir):
            raise
        folder = None
    if folder is None:
        train = folders.split_of(data_dir, train_split, stored_size)
        test_split = test_split or folders.find_test_split(data_dir)
        return ImageClassification(
            name=name if name == "folder" else f"{name}:folder",
            train=train,
            test=folders.split_of(data_dir, test_split, stored_size),
            num_classes=len(train.class_names),
            in_memory_bytes=in_memory_bytes,
            augmentation=augmentation,
        )
    builder = tfds.builder_from_directory(folder)
    if test_split is None:
        preferred = _TEST_SPLITS.get(builder.name, "test")
        test_split = (
            preferred if preferred in builder.info.splits else "validation"
        )
    return ImageClassification(
        name=f"{name.split(':')[0]}:{folder.name}",
        train=split_of(builder, train_split, stored_size),
        test=split_of(builder, test_split, stored_size),
        # After split_of, which checks that there are labels.
        num_classes=builder.info.features["label"].num_classes,
        in_memory_bytes=in_memory_bytes,
        augmentation=augmentation,
    )
