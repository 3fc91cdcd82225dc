"""Layers like others: the same, or of another size."""

from __future__ import annotations

import functools

import keras
import numpy as np

from tf_ssl.graph.copying.copier import Copier


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


def resized_layer(layer, changes: dict, memo: dict | None = None):
    """A layer like another, of another size.

    Made by `from_config` of the layer's class. What its config names by a
    description alone, such as activations, initializers, regularizers,
    constraints and inner layers, is taken from the layer itself, as copies.
    Initializers that know one shape only become zeros. Name, dtype policy and
    `trainable`, of inner layers and single variables as well, are kept.

    It is not built: call it. That builds layers used as activations with it,
    which Keras leaves to the first call with numbers, so that its variables are
    those of the layer, in the same order.

    Args:
        layer: Built layer.
        changes: Entries of its config. That of an inner layer is a layer, which
            is taken as it is, or a dict: changes of the inner layer's config,
            or a serialized layer, of which what differs is a change.
        memo: As for `copy_layer`, for what is copied; the layer and the new one
            are put in.

    Raises:
        ValueError: The config cannot be had or does not make a layer.

    >>> dense = keras.layers.Dense(3, activation=lambda x: 2.0 * x)
    >>> dense.build((None, 4))
    >>> small = resized_layer(dense, {"units": 2})
    >>> small.units, small.activation is dense.activation, small.built
    (2, True, False)
    """
    try:
        config = dict(layer.get_config())
    except Exception as error:  # whatever the user's class raises
        raise _no_config(layer, "get_config", error) from error
    live = _live_entries(layer, config, changes, memo)
    if "dtype" in config:
        live["dtype"] = copy_value(layer.dtype_policy, memo)
    given = {**config, **changes}
    new = _from_config(layer, given, live)
    new.name = layer.name
    if memo is not None:
        memo[id(layer)] = new
        memo.setdefault(id(memo), []).append(layer)
    _keep_flags(layer, new)
    _after_build(layer, new)
    return new


def _live_entries(layer, config, changes, memo) -> dict:
    """Entries of a config as the objects that they describe."""
    live = {}
    for name in {**config, **changes}:
        value = _attribute(layer, name)
        change = changes.get(name)
        if isinstance(value, keras.Layer):
            if name not in changes or isinstance(change, dict):
                live[name] = _inner(value, name, change, memo)
        elif name in changes or not callable(value):
            continue
        elif name.endswith("initializer") and not _fits_any_shape(value):
            live[name] = keras.initializers.Zeros()
        else:
            live[name] = copy_value(value, memo)
    return live


def _attribute(layer, name):
    """What a layer or its cell holds under the name of a config's entry."""
    for owner in (layer, getattr(layer, "cell", None)):
        # Attention hides its initializers; Bidirectional has two layers.
        for attribute in (name, f"_{name}", f"forward_{name}"):
            value = getattr(owner, attribute, None)
            if value is not None and getattr(value, "__self__", None) is None:
                return value
    return None


def _inner(layer, name, change, memo):
    if change is None and id(layer) in (memo or {}):
        return memo[id(layer)]
    if change is None and not layer.variables:
        return copy_layer(layer, memo)
    change = change or {}
    if "class_name" in change and "config" in change:
        before = layer.get_config()
        change = {
            k: v for k, v in change["config"].items() if v != before.get(k)
        }
    return resized_layer(layer, change, memo)


def _fits_any_shape(initializer) -> bool:
    """Whether an initializer makes arrays of other shapes than the layer's."""
    is_constant = isinstance(initializer, keras.initializers.Constant)
    module = type(initializer).__module__
    if module.startswith("keras.") and not is_constant:
        return True
    for shape in ((3, 5, 2, 4, 3), (7, 3), (5,)):
        try:
            made = initializer(shape, dtype="float32")
        except Exception:  # whatever another shape or rank makes it raise
            continue
        if tuple(np.shape(made)) == shape:
            return True
    return False


def _from_config(layer, config, live):
    """By the class's way of making it, with objects where it takes them."""
    kind = type(layer)
    errors = []
    for make, entries in (
        (kind.from_config, {**config, **live}),
        # A from_config that reads inner layers from their configs.
        (lambda entries: kind(**entries), {**config, **live}),
        (kind.from_config, config),
    ):
        try:
            return make(dict(entries))
        except Exception as error:  # whatever the user's class raises
            errors.append(error)
    raise _no_config(layer, "from_config", errors[0]) from errors[0]


def _no_config(layer, method, error):
    kind = type(layer).__name__
    return ValueError(
        f"Layer {layer.name} of class {kind} changes its size, and its "
        f"{method} does not work: write get_config, which returns all "
        f"arguments of __init__, for {kind} or for what it holds, or leave the "
        f"layer out (exclude=). "
        f"{type(error).__name__}: {error}"
    )


def _keep_flags(layer, new):
    """Sets trainable as it is in the layer, its inner layers and variables."""
    pairs = list(
        zip(layer._flatten_layers(), new._flatten_layers(), strict=False)
    )
    for old, other in pairs:
        if type(old) is type(other):
            other._trainable = old._trainable
    for old, other in zip(layer.variables, new.variables, strict=False):
        if old.name == other.name:
            other.trainable = old.trainable


def _after_build(layer, new):
    """Once built, its activations are built and its flags are kept."""
    build = new.build

    @functools.wraps(build)
    def build_all(*args, **kwargs):
        vars(new)["build"] = build  # and the layer is no longer held
        build(*args, **kwargs)
        for inner in new._flatten_layers(include_self=False):
            if not inner.built and not inner.variables:
                _build_activation(new, inner, *args, **kwargs)
        _keep_flags(layer, new)

    vars(new)["build"] = build_all


def _build_activation(new, activation, *args, **kwargs):
    cell = getattr(new, "cell", new)
    if activation is not getattr(cell, "activation", None) and (
        activation is not getattr(cell, "recurrent_activation", None)
    ):
        return
    if cell is not new:
        activation.build((None, cell.units))
    else:
        activation.build(new.compute_output_shape(*args, **kwargs))
