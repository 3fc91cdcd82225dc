"""Batches of two domains: labels of the one, images of both."""

from __future__ import annotations

import tensorflow as tf

from models.data.classification import ImageClassification


class DomainPairs:
    """A source with labels and a target without, as one training set.

    Batches of training are `({"source": images, "target": images}, labels of
    the source)`; an epoch is one of the source, and the target goes round by
    itself. The test set is the target's, whose images stand for both, so that
    accuracy is that on the target.

    Args:
      source: has the methods of `models.data.ImageClassification`.
      target: likewise.

    Raises:
      ValueError: their images have other shapes, or other classes.
    """

    def __init__(self, source: ImageClassification, target):
        for what in ("image_shape", "num_classes"):
            ours, theirs = (getattr(each, what) for each in (source, target))
            if ours != theirs:
                raise ValueError(
                    f"Source {source.name} and target {target.name} differ in "
                    f"{what.replace('_', ' ')}: {ours} and {theirs}. Expected "
                    "the same, for one network learns from both"
                )
        self.source = source
        self.target = target
        self.name = f"{source.name} to {target.name}"
        self.num_classes = source.num_classes
        self.image_shape = source.image_shape
        self.num_train = source.num_train
        self.num_test = target.num_test

    def steps_per_epoch(self, batch_size: int, size: int = 1) -> int:
        """As of the source.

        Raises:
          ValueError: one of the two has too few images for one step.
        """
        self.target.steps_per_epoch(batch_size, size)
        return self.source.steps_per_epoch(batch_size, size)

    def test_examples(self, rank: int = 0, size: int = 1) -> int:
        """As of the target."""
        return self.target.test_examples(rank, size)

    def train(
        self, batch_size, rank=0, size=1, seed=0, start_epoch=0, num_ranks=1
    ) -> tf.data.Dataset:
        """See `ImageClassification.train`; batches as above."""
        own, others = (
            each.steps_per_epoch(batch_size, size)
            for each in (self.source, self.target)
        )
        # Where the target's stream is after so many epochs of the source.
        epoch, step = divmod(start_epoch * own, others)
        source = self.source.train(
            batch_size, rank, size, seed, start_epoch, num_ranks
        )
        target = self.target.train(
            batch_size, rank, size, seed + 1, epoch, num_ranks
        ).skip(step)
        return tf.data.Dataset.zip(source, target).map(
            lambda one, other: (
                {"source": one[0], "target": other[0]},
                one[1],
            )
        )

    def test(self, batch_size, rank=0, size=1) -> tf.data.Dataset:
        """See `ImageClassification.test`, of the target."""
        return self.target.test(batch_size, rank, size).map(
            lambda images, labels: (
                {"source": images, "target": images},
                labels,
            )
        )
