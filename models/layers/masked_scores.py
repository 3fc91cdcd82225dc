"""Scores of what is not there, so low that a softmax gives them nothing."""

from __future__ import annotations

import keras

_LOW = -1e30


def masked_scores(scores, mask):
    """Scores as float32; -1e30 where the mask is False.

    >>> import numpy as np
    >>> masked_scores(np.array([1.0, 2.0]), np.array([True, False])).numpy()
    array([ 1.e+00, -1.e+30], dtype=float32)

    Args:
      scores: any shape.
      mask: boolean, of a shape that broadcasts to it; None: all are there.
    """
    scores = keras.ops.cast(scores, "float32")
    return scores if mask is None else keras.ops.where(mask, scores, _LOW)
