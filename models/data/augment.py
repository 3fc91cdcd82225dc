"""Crops, mirrors and normalizes batches of images.

Whatever is random about an image is a function of a few numbers in [0, 1)
that `order.draws` makes from the seed, the epoch and the image's index: a run
that starts again sees the images that it would have seen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

Transform = Callable[[tf.Tensor], tf.Tensor]
RandomTransform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to images between the file and the network.

    Attributes:
      name: one of `NAMES`.
      image_size: height and width that the network sees; None for those of
        the set.
      stored_size: height and width that crops are taken from; None for
        those of the set.
      num_draws: random numbers per training image.
      train: from uint8 images `[batch, height, width, channels]` of the
        stored size and draws `[batch, num_draws]` in [0, 1) to float32
        images.
      test: from uint8 images to float32 images.
    """

    name: str
    image_size: tuple[int, int] | None
    stored_size: tuple[int, int] | None
    num_draws: int
    train: RandomTransform
    test: Transform


def of(name: str, image_size: tuple[int, int] | None = None) -> Augmentation:
    """Returns an augmentation.

    - "none": images in [0, 1].
    - "shift", for digits: images in [0, 1], for training moved by up to one
      pixel down or up and right or left, black where nothing was.
    - "cifar", of TensorFlow's tutorial on CIFAR-10: for training a random
      crop of three quarters of each side (24 of 32 pixels), mirrored or not,
      with the contrast changed by a factor of 0.2 to 1.8; for testing the
      central crop. Each image is then standardized: mean 0, standard
      deviation 1.
    - "cifar_pad", of residual networks: for training four pixels of the mean
      colour around the image and a random crop of its own size, mirrored or
      not; for testing the image. Colours are normalized by the mean and the
      standard deviation of CIFAR-10.
    - "imagenet", after Inception: all images are resized to 8/7 of the
      network's size (256 for 224). For training a random window of 8 to 100 %
      of the area and an aspect ratio of 3/4 to 4/3, resized, mirrored or
      not; for testing the central crop. Values in [-1, 1].

    Departure: the tutorial also adds a random brightness. Standardizing takes
    every constant out again, so it is left out here. Of Inception, colours
    are not changed, and a window that is too long for the image is cut, not
    drawn again.

    Args:
      name: one of `NAMES`.
      image_size: height and width that the network sees; None is the set's
        for "none" and "shift", 24 x 24 for "cifar", 32 x 32 for "cifar_pad",
        224 x 224 for "imagenet".

    Raises:
      ValueError: `name` is not known.

    Reference:
      TernGrad (Wen et al., NIPS 2017), section 4; the authors' code for
      CIFAR-10. He et al., Deep residual learning for image recognition, CVPR
      2016, section 4.2. Szegedy et al., Going deeper with convolutions, CVPR
      2015, section 6.
    """
    if name == "none":
        return Augmentation(
            name, image_size, image_size, 0, _only_scale, to_unit_range
        )
    if name == "shift":
        return Augmentation(
            name, image_size, image_size, 2, _train_shift, to_unit_range
        )
    if name == "cifar":
        size = image_size or (24, 24)
        return Augmentation(
            name,
            size,
            _times(size, 4 / 3),
            4,
            lambda images, draws: _train_cifar(images, draws, size),
            lambda images: standardize(
                to_unit_range(central_crop(images, size))
            ),
        )
    if name == "cifar_pad":
        size = image_size or (32, 32)
        return Augmentation(
            name, size, size, 3, _train_cifar_pad, to_cifar_range
        )
    if name == "imagenet":
        size = image_size or (224, 224)
        return Augmentation(
            name,
            size,
            _times(size, 8 / 7),
            5,
            lambda images, draws: _train_imagenet(images, draws, size),
            lambda images: to_both_signs(central_crop(images, size)),
        )
    raise ValueError(
        "Invalid value for argument augment. Expected one of "
        f"{{{', '.join(map(repr, NAMES))}}}. Received: augment={name!r}"
    )


NAMES = ("none", "shift", "cifar", "cifar_pad", "imagenet")

# Of the colours of CIFAR-10's training images, from 0 to 1.
_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STDDEV = (0.2470, 0.2435, 0.2616)
_CIFAR_PAD = 4  # pixels
_SHIFT = 1  # pixel


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """Casts uint8 images to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def to_cifar_range(images: tf.Tensor) -> tf.Tensor:
    """Normalizes the colours of uint8 images by those of CIFAR-10.

    Args:
      images: `[batch, height, width, channels]`, 3 channels or 1 of grey.
    """
    mean, stddev = (
        tf.constant(values if images.shape[-1] == 3 else [sum(values) / 3])
        for values in (_CIFAR_MEAN, _CIFAR_STDDEV)
    )
    return (to_unit_range(images) - mean) / stddev


def to_both_signs(images: tf.Tensor) -> tf.Tensor:
    """Casts images of values in [0, 255] to float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def central_crop(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the middle of images `[batch, height, width, channels]`."""
    top, left = (
        (have - want) // 2
        for have, want in zip(images.shape[1:3], size, strict=True)
    )
    return images[:, top : top + size[0], left : left + size[1]]


def crop(
    images: tf.Tensor,
    down: tf.Tensor,
    right: tf.Tensor,
    mirror: tf.Tensor,
    size: tuple[int, int],
) -> tf.Tensor:
    """Cuts a window out of each image, mirrored where that is asked for.

    Args:
      images: `[batch, height, width, channels]`.
      down: `[batch]` in [0, 1): the window's place; 0 is the top, towards 1
        the bottom, each row as likely as the next for uniform numbers.
      right: the same from left to right.
      mirror: `[batch]`, bool: whether left and right change places.
      size: height and width of the windows.
    """

    def places(have, want, where):
        first = tf.cast(where * (have - want + 1.0), tf.int32)
        return first[:, tf.newaxis] + tf.range(want)  # [batch, want]

    rows = places(images.shape[1], size[0], down)
    columns = places(images.shape[2], size[1], right)
    columns = tf.where(mirror[:, tf.newaxis], columns[:, ::-1], columns)
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def change_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves each channel from or towards its mean by a factor per image.

    Args:
      images: float `[batch, height, width, channels]`.
      factor: `[batch]`.
    """
    mean = tf.reduce_mean(images, [1, 2], keepdims=True)
    factor = factor[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return (images - mean) * factor + mean


def standardize(images: tf.Tensor) -> tf.Tensor:
    """Gives each image mean 0 and standard deviation 1 over all its values.

    An image of one colour becomes 0 (see `tf.image.per_image_standardization`
    for the smallest standard deviation).
    """
    return tf.image.per_image_standardization(images)


def windows(draws: tf.Tensor) -> tf.Tensor:
    """Places windows of random area and aspect ratio in a unit square.

    Args:
      draws: `[batch, 4]` in [0, 1), for area, aspect ratio, place down and
        place to the right.

    Returns:
      `[batch, 4]`: top, left, bottom, right in [0, 1].
    """
    area = 0.08 + 0.92 * draws[:, 0]
    # Uniform in the logarithm: as often high as wide.
    aspect = tf.exp((2.0 * draws[:, 1] - 1.0) * math.log(4 / 3))
    height = tf.minimum(tf.sqrt(area / aspect), 1.0)
    width = tf.minimum(tf.sqrt(area * aspect), 1.0)
    top = draws[:, 2] * (1.0 - height)
    left = draws[:, 3] * (1.0 - width)
    return tf.stack([top, left, top + height, left + width], axis=1)


def _only_scale(images, draws):
    del draws  # `[batch, 0]`
    return to_unit_range(images)


def _train_cifar(images, draws, size):
    images = crop(images, draws[:, 0], draws[:, 1], draws[:, 2] < 0.5, size)
    factor = 0.2 + 1.6 * draws[:, 3]
    return standardize(change_contrast(to_unit_range(images), factor))


def _train_shift(images, draws):
    mirror = tf.zeros_like(draws[:, 0], tf.bool)
    return _shifted(to_unit_range(images), draws, _SHIFT, mirror)


def _train_cifar_pad(images, draws):
    # After normalizing: 0 is the mean colour.
    images = to_cifar_range(images)
    return _shifted(images, draws, _CIFAR_PAD, draws[:, 2] < 0.5)


def _shifted(images, draws, most, mirror):
    """Crops of the images' own size after `most` pixels of 0 around them."""
    size = images.shape[1:3]
    border = [most, most]
    images = tf.pad(images, [[0, 0], border, border, [0, 0]])
    return crop(images, draws[:, 0], draws[:, 1], mirror, size)


def _train_imagenet(images, draws, size):
    top, left, bottom, right = tf.unstack(windows(draws[:, :4]), axis=1)
    mirror = draws[:, 4] < 0.5
    boxes = tf.stack(
        [
            top,
            tf.where(mirror, right, left),
            bottom,
            tf.where(mirror, left, right),
        ],
        axis=1,
    )
    images = tf.image.crop_and_resize(
        images, boxes, tf.range(tf.shape(images)[0]), size
    )
    return to_both_signs(images)


def _times(size, factor):
    return tuple(round(factor * side) for side in size)
