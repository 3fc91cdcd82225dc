"""What symbolic tensors do not show, made visible while a layer is opened."""

from __future__ import annotations

import functools
import inspect
import re
import threading

import keras
import numpy as np

from tf_ssl.graph.opening.batch import in_rows
from tf_ssl.graph.opening.reasons import CannotOpen


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
    """A symbolic tensor for what a layer holds; None where it needs none.

    In lists, tuples and dicts too, of which there are others then.
    """
    if isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        made = {key: visible(layer, x, source) for key, x in list(items)}
        if all(x is None for x in made.values()):
            return None
        if isinstance(value, dict):
            return {
                k: x if made[k] is None else made[k] for k, x in value.items()
            }
        made = [x if made[i] is None else made[i] for i, x in enumerate(value)]
        if isinstance(value, tuple):
            is_named = hasattr(value, "_fields")
            return type(value)(*made) if is_named else tuple(made)
        return made
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


def positional(layer, args) -> list:
    """Names of the arguments that a layer is given by position."""
    return list(inspect.signature(layer.call).parameters)[: len(args)]


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
    """Functions of Keras that ask for more than symbolic tensors know.

    They are themselves again for other threads, and afterwards.

    Args:
        anchor: KerasTensor with the batch on its first axis.
        batch: `Batch`.
        layer_call: Function (`keras.Layer.__call__`, layer, *args, **kwargs)
            that is called in place of it.
    """

    def __init__(self, anchor, batch, layer_call):
        self._anchor = anchor
        self._batch = batch
        self._layer_call = layer_call
        self._before: list = []

    def __enter__(self):
        thread = threading.get_ident()

        def patch(owner, name, function):
            original = getattr(owner, name)

            @functools.wraps(original)
            def patched(*args, **kwargs):
                if threading.get_ident() != thread:
                    return original(*args, **kwargs)
                return function(original, *args, **kwargs)

            self._before.append((owner, name, original))
            setattr(owner, name, patched)

        patch(keras.ops, "convert_to_tensor", self._convert_to_tensor)
        patch(keras.ops, "tile", self._tile)
        patch(keras.ops, "repeat", self._repeat)
        patch(keras.ops, "broadcast_to", self._broadcast_to)
        patch(keras.KerasTensor, "__getitem__", self._get_item)
        patch(keras.Layer, "add_loss", self._add_loss)
        patch(keras.Layer, "__call__", self._layer_call)

    def __exit__(self, *error):
        for owner, name, original in reversed(self._before):
            setattr(owner, name, original)

    def _convert_to_tensor(self, original, x, dtype=None, *args, **kwargs):
        if isinstance(x, keras.KerasTensor):
            return x if dtype is None else keras.ops.cast(x, dtype)
        return original(x, dtype, *args, **kwargs)

    def _get_item(self, original, x, key):
        # Keras takes no slice, None or ... that is not in a tuple.
        is_alone = not isinstance(key, tuple | list | keras.KerasTensor)
        return original(x, (key,) if is_alone else key)

    def _add_loss(self, original, layer, loss):
        raise CannotOpen("it adds a loss itself (add_loss)")

    def _has_one_row(self, x) -> bool:
        return isinstance(x, keras.KerasTensor) and x.shape[:1] == (1,)

    def _is_batch(self, size) -> bool:
        return isinstance(size, int) and size == self._batch.size

    def _tile(self, original, x, repeats):
        if (
            self._has_one_row(x)
            and isinstance(repeats, list | tuple)
            and len(repeats) == len(x.shape)
            and self._is_batch(repeats[0])
        ):
            if any(n != 1 for n in repeats[1:]):
                x = original(x, (1, *repeats[1:]))
            return in_rows(x, self._anchor)
        return original(x, repeats)

    def _repeat(self, original, x, repeats, axis=None):
        if axis == 0 and self._has_one_row(x) and self._is_batch(repeats):
            return in_rows(x, self._anchor)
        return original(x, repeats, axis)

    def _broadcast_to(self, original, x, shape):
        if (
            isinstance(x, keras.KerasTensor)
            and isinstance(shape, list | tuple)
            and len(shape)
            and self._is_batch(shape[0])
            and (len(x.shape) < len(shape) or x.shape[0] == 1)
        ):
            if tuple(x.shape) != (1, *shape[1:]):
                x = original(x, (1, *shape[1:]))
            return in_rows(x, self._anchor)
        return original(x, shape)


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
    """What a layer's own code does that symbolic tensors do not show.

    What inner layers read to find their shapes is read in scopes of theirs.
    """

    def __init__(self):
        self._variables: list = []

    def __enter__(self):
        self._scope = keras.StatelessScope(collect_losses=True)
        self._scope.__enter__()
        known = self._scope.get_current_value

        def get_current_value(variable):
            self._variables.append(variable)
            return known(variable)

        self._scope.get_current_value = get_current_value

    def __exit__(self, *error):
        return self._scope.__exit__(*error)

    def refuse(self) -> None:
        """Raises CannotOpen if there was any of it."""
        for variable in self._variables:
            if "seed_generator" in variable.path:
                raise CannotOpen("it draws random numbers itself")
            raise CannotOpen(
                f"it reads its variable {variable.path} in a way that symbolic "
                "tensors do not show"
            )
        if self._scope.state_mapping:
            raise CannotOpen("it assigns to a variable")
        if self._scope.losses:
            raise CannotOpen("it adds a loss itself (add_loss)")
