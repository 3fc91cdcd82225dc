"""Stochastic depth under other names, as Keras' own Dropout."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.copying.live_copy import copy_layer

_EXAMPLES = 256


def as_dropout(layer, shape, name: str) -> keras.layers.Dropout | None:
    """A Dropout of whole examples that does what a layer does, or None.

    Found by trying it: in inference the layer returns what it is given, and in
    training it multiplies each example by 0 or by one number s. That is a
    Dropout of the rate 1 - 1/s whose noise is the same over an example.

    Args:
        layer: Built layer, called with one tensor. It is not changed.
        shape: Of that tensor.
        name: For the Dropout.
    """
    sizes = (_EXAMPLES, *(n or 2 for n in shape[1:]))
    ones = keras.ops.ones(sizes, layer.compute_dtype)
    try:
        copy = copy_layer(layer)
        inference = keras.ops.convert_to_numpy(copy(ones, training=False))
        training = keras.ops.convert_to_numpy(copy(ones, training=True))
    except Exception:  # whatever the layer's own code raises
        return None
    if inference.shape != sizes or training.shape != sizes:
        return None
    rows = training.astype(np.float32).reshape(_EXAMPLES, -1)
    if (inference != 1).any() or (rows != rows[:, :1]).any():
        return None
    scales = np.unique(rows[rows != 0])
    if len(scales) != 1 or scales[0] < 1:
        return None
    noise = (None, *[1] * (len(shape) - 1))
    return keras.layers.Dropout(
        round(float(1 - 1 / scales[0]), 6),
        noise_shape=noise,
        name=name,
        dtype=layer.dtype_policy,
    )
