"""Another domain made of images: the same digits, looking different."""

from __future__ import annotations

import numpy as np


def textured(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Images on coloured or grey textures, as MNIST-M's.

    |image - texture|, where each texture is smooth noise: random numbers on a
    grid of 4 x 4, enlarged with linear interpolation, times a random contrast.

    Args:
      images: float `[images, height, width, channels]` in [0, 1].
      seed: of the textures; image i of an array always has the same.

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
