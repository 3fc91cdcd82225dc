"""What symbolic tensors do not show, made visible while a layer is opened."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np

from tf_ssl.graph.batch import BATCH
from tf_ssl.graph.sources import Rows


def with_lengths(layer, args, outputs):
    """A result with the sizes that an EinsumDense forgets."""
    given, _, made = re.split(",|->", layer.equation.replace(" ", ""))
    if "." in given or None not in outputs.shape[1:]:
        return outputs
    sizes = dict(zip(given, args[0].shape, strict=True))
    shape = tuple(
        sizes.get(x) if n is None else n
        for x, n in zip(made, outputs.shape, strict=True)
    )
    known = keras.KerasTensor(shape, outputs.dtype, name=outputs.name)
    known._keras_history = outputs._keras_history
    layer._inbound_nodes[-1].outputs[:] = [known]
    return known


def visible(layer, value, source):
    """A symbolic tensor for what a layer holds; None where it needs none."""
    if isinstance(value, keras.Variable):
        dtype = str(value.dtype)
        if "float" in dtype and value._autocast:
            dtype = layer.compute_dtype
        return source(value, dtype)
    is_array = keras.ops.is_tensor(value) or isinstance(value, np.ndarray)
    return source(value) if is_array and len(value.shape) else None


def with_masks(layer, args, kwargs) -> dict:
    """Keyword arguments with the masks that Keras' `__call__` fills in."""
    signature = inspect.signature(layer.call)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    tensors = {
        name: value
        for name, value in bound.arguments.items()
        if any(
            isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(value)
        )
    }
    added = {}
    for name, value in tensors.items():
        mask_name = "mask" if len(tensors) == 1 else f"{name}_mask"
        known = bound.arguments.get(mask_name, mask_name)
        if known is None:
            mask = _mask_of(value)
            if any(x is not None for x in keras.tree.flatten(mask)):
                added[mask_name] = mask
    return {**kwargs, **added}


def pass_mask_on(layer, args, kwargs, outputs) -> None:
    """Gives a layer's results the mask that Keras' `__call__` gives them."""
    if not layer.supports_masking:
        return
    bound = inspect.signature(layer.call).bind(*args, **kwargs)
    first = next(iter(bound.arguments.values()))
    mask = kwargs.get("mask")
    layer._set_mask_metadata(
        first, outputs, _mask_of(first) if mask is None else mask
    )


def _mask_of(value):
    return keras.tree.map_structure(
        lambda x: getattr(x, "_keras_mask", None), value
    )


class Patches:
    """Functions of keras.ops that ask for more than symbolic tensors know."""

    def __init__(self, anchor):
        self._anchor = anchor
        self._originals: dict = {}

    def __enter__(self):
        for name in ("convert_to_tensor", "tile", "broadcast_to"):
            self._originals[name] = getattr(keras.ops, name)
            setattr(keras.ops, name, getattr(self, f"_{name}"))

    def __exit__(self, *error):
        for name, original in self._originals.items():
            setattr(keras.ops, name, original)

    def _convert_to_tensor(self, x, dtype=None, *args, **kwargs):
        if isinstance(x, keras.KerasTensor):
            return x if dtype is None else keras.ops.cast(x, dtype)
        return self._originals["convert_to_tensor"](x, dtype, *args, **kwargs)

    def _in_rows(self, x):
        """X for each example of the batch."""
        return Rows()(x, self._anchor)

    def _tile(self, x, repeats):
        if (
            isinstance(x, keras.KerasTensor)
            and isinstance(repeats, list | tuple)
            and len(repeats) == len(x.shape)
            and repeats[0] == BATCH
            and x.shape[0] == 1
        ):
            if any(n != 1 for n in repeats[1:]):
                x = self._originals["tile"](x, (1, *repeats[1:]))
            return self._in_rows(x)
        return self._originals["tile"](x, repeats)

    def _broadcast_to(self, x, shape):
        if (
            isinstance(x, keras.KerasTensor)
            and len(shape)
            and shape[0] == BATCH
            and (len(x.shape) < len(shape) or x.shape[0] == 1)
        ):
            if tuple(x.shape) != (1, *shape[1:]):
                x = self._originals["broadcast_to"](x, (1, *shape[1:]))
            return self._in_rows(x)
        return self._originals["broadcast_to"](x, shape)


def as_called(layer, x):
    """An argument as Keras' `__call__` would pass it on."""
    if not isinstance(x, keras.KerasTensor) or not layer._convert_input_args:
        return x
    converted = layer.dtype_policy.convert_input(
        x, layer.autocast, layer.input_dtype
    )
    mask = getattr(x, "_keras_mask", None)
    if mask is not None:
        converted._keras_mask = mask
    return converted


class Reads:
    """Variables of the layer's own that are read while it is opened.

    What inner layers read to find their shapes is read in scopes of theirs.
    """

    def __init__(self):
        self.variables = []

    def __enter__(self):
        self._scope = keras.StatelessScope()
        self._scope.__enter__()
        known = self._scope.get_current_value

        def get_current_value(variable):
            if "seed_generator" not in variable.path:
                self.variables.append(variable)
            return known(variable)

        self._scope.get_current_value = get_current_value

    def __exit__(self, *error):
        return self._scope.__exit__(*error)
