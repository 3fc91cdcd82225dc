"""Stochastic depth under other names, as Keras' own Dropout."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.copying.live_copy import copy_layer

_EXAMPLES = 4096
_LARGEST = 2**26  # numbers in a trial
# Digits of a rate that the types tell apart.
_DIGITS = {"float16": 3, "bfloat16": 2}


def as_dropout(layer, shape, name: str) -> keras.layers.Dropout | None:
    """A Dropout of whole examples that does what a layer does, or None.

    Found by trying it: in inference the layer returns what it is given, and in
    training it multiplies each example by 0, as often as 1 - 1/s says, or by
    one number s. That is a Dropout of the rate 1 - 1/s whose noise is the same
    over an example.

    Args:
        layer: Built layer, called with one tensor. It is not changed.
        shape: Of that tensor.
        name: For the Dropout.
    """
    small = (_EXAMPLES, *(min(n or 2, 2) for n in shape[1:]))
    whole = (_EXAMPLES, *(n or 2 for n in shape[1:]))
    for sizes in (small, whole):
        scale = _scale_of_rows(layer, sizes)
        if scale is not None:
            break
    else:
        return None
    noise = (None, *[1] * (len(shape) - 1))
    return keras.layers.Dropout(
        round(1 - 1 / scale, _DIGITS.get(layer.compute_dtype, 6)),
        noise_shape=noise,
        name=name,
        dtype=layer.dtype_policy,
    )


def _scale_of_rows(layer, sizes) -> float | None:
    """What training multiplies those rows with that it does not drop."""
    if np.prod(sizes) > _LARGEST:
        return None
    # Powers of 2, so that products with one number have one rounding.
    random = np.random.default_rng(0)
    x = random.choice([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0], sizes)
    try:
        copy = copy_layer(layer)
        given = keras.ops.cast(x, layer.compute_dtype)
        inference = _numbers(copy(given, training=False))
        training = _numbers(copy(given, training=True))
    except Exception:  # whatever the layer's own code raises
        return None
    if inference.shape != sizes or training.shape != sizes:
        return None
    rows = (training / x).reshape(len(x), -1)
    if (inference != x).any() or (rows != rows[:, :1]).any():
        return None
    scales = np.unique(rows[rows != 0])
    if len(scales) != 1 or not 1 < scales[0] < np.inf:
        return None
    rate = 1 - 1 / scales[0]
    dropped = (rows[:, 0] == 0).mean()
    # Beyond 6 standard deviations by chance once in 500 million layers.
    deviation = np.sqrt(rate * (1 - rate) / len(x))
    return float(scales[0]) if abs(dropped - rate) < 6 * deviation else None


def _numbers(x):
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
