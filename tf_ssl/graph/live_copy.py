"""Layers like others: the same, or of another size."""

from __future__ import annotations

import keras

from tf_ssl.graph.copier import Copier


def copy_layer(layer, memo: dict | None = None):
    """Another layer that is the same in all but identity.

    Not by its config, so that layers without one, adapted ones, functions
    without a name and states stay what they are. The copy has own variables of
    equal values, paths and names, own seed generators in the same state and own
    sublayers, and is in no graph. Nested models are copied with their graphs
    and are not compiled. Lookup tables are those of the layer.

    Args:
        layer: `keras.Layer`, models included, or `keras.Operation`.
        memo: id(old) -> new of all that was copied; filled. Several calls that
            are given the same one keep what layers share. What is put in
            before, such as a layer and its resized form, is taken from it.

    Returns:
        The copy.

    Raises:
        TypeError: It is no layer.

    >>> dense = keras.layers.Dense(3, activation=lambda x: 2.0 * x)
    >>> dense.build((None, 4))
    >>> other = copy_layer(dense)
    >>> other.activation is dense.activation, other.kernel is dense.kernel
    (True, False)
    """
    if not isinstance(layer, keras.Operation):
        raise TypeError(
            "Invalid type for argument layer. Expected a keras.Layer or "
            f"keras.Operation. Received: layer={layer!r} of type "
            f"{type(layer).__name__}"
        )
    return copy_value(layer, memo)


def copy_value(value, memo: dict | None = None):
    """A copy of what a layer holds or is called with.

    Args:
        value: Variables, layers, functions, arrays, or lists, dicts and
            objects of them.
        memo: As for `copy_layer`.

    >>> variable = keras.Variable([1.0])
    >>> first, second = copy_value([variable, variable])
    >>> first is second, first is variable
    (True, False)
    """
    copier = Copier(memo)
    try:
        return copier(value)
    finally:
        copier.finish()
