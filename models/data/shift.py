"""Another domain made of images: the same digits, looking different."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


class Textured:
    """A set of images, each on a texture of its own: see `textured`.

    Textures of training images are other ones in every epoch, those of test
    images always the same; both are repeated by a restart.

    Args:
      images: `models.data.ImageClassification` of images in [0, 1].
    """

    def __init__(self, images):
        self._images = images
        self.name = f"{images.name} textured"

    def __getattr__(self, name):
        """Sizes and shapes are those of the images."""
        return getattr(self._images, name)

    def train(
        self, batch_size, rank=0, size=1, seed=0, start_epoch=0, num_ranks=1
    ):
        """See `ImageClassification.train`."""
        first = start_epoch * self._images.steps_per_epoch(batch_size, size)
        batches = self._images.train(
            batch_size, rank, size, seed, start_epoch, num_ranks
        )
        return _textured_batches(batches, (1 + seed, rank), first)

    def test(self, batch_size, rank=0, size=1):
        """See `ImageClassification.test`."""
        batches = self._images.test(batch_size, rank, size)
        return _textured_batches(batches, (0, rank), 0)


def _textured_batches(batches, seed, first):
    def of_batch(number, images, labels):
        (on_texture,) = tf.numpy_function(
            lambda images, number: textured(images, (*seed, int(number))),
            [images, number],
            [tf.float32],
        )
        return tf.ensure_shape(on_texture, images.shape), labels

    return batches.enumerate(first).map(
        lambda number, batch: of_batch(number, *batch)
    )


def textured(images: np.ndarray, seed=0) -> np.ndarray:
    """Images on coloured or grey textures, as MNIST-M's.

    |image - texture|, where each texture is smooth noise: random numbers on a
    grid of 4 x 4, enlarged with linear interpolation, times a random contrast.

    Args:
      images: float `[images, height, width, channels]` in [0, 1].
      seed: of the textures, an integer >= 0 or a tuple of them; image i of an
        array always has the same.

    Returns:
      float32 of the same shape, in [0, 1].

    Raises:
      ValueError: another rank, or values outside [0, 1].

    Departure: MNIST-M (Ganin and Lempitsky, ICML 2015) blends with photographs,
    which this cannot carry.
    """
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.size == 0:
        raise ValueError(
            "Invalid value for argument images. Expected [images, height, "
            f"width, channels], not empty. Received: shape {images.shape}"
        )
    if images.min() < 0 or images.max() > 1:
        raise ValueError(
            "Invalid value for argument images. Expected values in [0, 1]. "
            f"Received: values in [{images.min():g}, {images.max():g}]"
        )
    number, height, width, channels = images.shape
    random = np.random.default_rng(seed)
    grid = random.random((number, 4, 4, channels), np.float32)
    contrast = random.uniform(0.4, 1.0, (number, 1, 1, 1)).astype(np.float32)
    texture = _enlarge(_enlarge(grid, height, 1), width, 2)
    return np.abs(images - contrast * texture)


def _enlarge(values, size, axis):
    """Linear interpolation along an axis."""
    places = np.linspace(0, values.shape[axis] - 1, size)
    low = np.minimum(places.astype(int), values.shape[axis] - 2)
    share = (places - low).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = size
    share = share.reshape(shape)
    return (1 - share) * values.take(low, axis) + share * values.take(
        low + 1, axis
    )
