"""Regularizers over a whole model, by patterns."""

from __future__ import annotations

import keras

from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.penalties.regularizer_sum import RegularizerSum
from tf_ssl.structures.kernels import Kernel, all_layers, find_kernels, no_match


def regularize(model, patterns, keep=False) -> list[tuple[str, object]]:
    """Gives the kernels of a built model their regularizers.

    A pattern (`fnmatch`, case matters) is compared with the path of each
    kernel, such as `"conv1/kernel"`, with or without the names of the models
    it is nested in, and with the name of each layer that it is in, such as
    `"conv1"`. The last pattern that matches a kernel counts, so that exceptions
    come after the rule:

    >>> import tf_ssl
    >>> inputs = keras.Input([28, 28, 1])
    >>> x = keras.layers.Conv2D(20, 5, name="conv1")(inputs)
    >>> x = keras.layers.Flatten()(x)
    >>> x = keras.layers.Dense(10, name="logits")(x)
    >>> model = keras.Model(inputs, x)
    >>> lasso = tf_ssl.GroupLasso(5e-3, groups=("filter", "shape"))
    >>> found = tf_ssl.regularize(model, {"*": lasso, "logits": None})
    >>> [path for path, _ in found]
    ['conv1/kernel']

    Kernels are those of Dense, Conv, Conv transposed, depthwise, separable,
    Embedding, LSTM, GRU and SimpleRNN layers, in nested models and wrappers
    too. Any other variable is reached by its whole path as the pattern,
    without wildcards; its GroupLasso then needs a `kind`, or `axis`, where
    "auto" is wrong.

    The next `compile` or `fit` applies the regularizers. They are set on the
    variable and on the layer, so that a saved or cloned model has them; a
    layer of your own needs an attribute such as `kernel_regularizer` and its
    entry in `get_config` for that.

    Args:
        model: Built Keras model; changed in place.
        patterns: Dict from a pattern to a regularizer: a
            `keras.regularizers.Regularizer`, a dict of arguments of
            `GroupLasso`, a list of these, whose penalties add, or None for no
            regularizer. A `GroupLasso` gets `kind` and `conv_groups` from the
            class of the layer where it leaves them "auto" and 1.
        keep: A regularizer that a kernel has already, other than `GroupLasso`,
            stays beside the new one. Defaults to False: it is replaced.

    Returns:
        (path, regularizer) of each variable whose regularizer was set, in the
        order of the model's layers.

    Raises:
        TypeError: `patterns` is no dict, or a value is no regularizer.
        ValueError: The model is not built, a pattern matches nothing, or a
            kernel does not have the groups asked for. Nothing is set then.
    """
    if not isinstance(patterns, dict):
        raise TypeError(
            "Invalid type for argument patterns. Expected a dict from patterns "
            f"to regularizers. Received: patterns={patterns!r}"
        )
    wanted = {
        pattern: _regularizers(pattern, value)
        for pattern, value in patterns.items()
    }
    kernels = find_kernels(model)
    choices = _choose(kernels, wanted, model)
    chosen = []
    for kernel, pattern in choices:
        parts = [_fill(part, kernel) for part in wanted[pattern]]
        for part in parts:
            if isinstance(part, GroupLasso):
                _check(part, kernel)
        if keep:
            parts = _others(kernel.variable.regularizer) + parts
        chosen.append((kernel, parts))

    done = []
    for kernel, parts in chosen:
        regularizer = RegularizerSum(parts) if len(parts) > 1 else None
        if len(parts) == 1:
            regularizer = parts[0]
        kernel.variable.regularizer = regularizer
        if hasattr(kernel.layer, kernel.regularizer_name):
            setattr(kernel.layer, kernel.regularizer_name, regularizer)
        if regularizer is not None:
            done.append((kernel.variable.path, regularizer))
    # A traced step holds the penalties it was traced with.
    for name in ("train_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    return done


def _regularizers(pattern, value) -> list:
    """A value of `patterns` as a list of regularizers."""
    if value is None:
        return []
    if isinstance(value, tuple | list):
        return [r for entry in value for r in _regularizers(pattern, entry)]
    if isinstance(value, dict) and "class_name" not in value:
        return [GroupLasso(**value)]
    if isinstance(value, str | dict) or callable(value):
        return [keras.regularizers.get(value)]
    raise TypeError(
        "Invalid type for argument patterns. Expected a regularizer, a "
        "dict of arguments of GroupLasso, a list of these or None for "
        f"{pattern!r}. Received: {value!r}"
    )


def _choose(kernels, wanted, model) -> list[tuple[Kernel, str]]:
    """Kernels with the last pattern that matches them."""
    chosen = {}
    for pattern in wanted:
        hits = [kernel for kernel in kernels if kernel.matches(pattern)]
        hits = hits or _exact(model, pattern)
        if not hits:
            raise no_match(kernels, pattern)
        for kernel in hits:
            chosen[id(kernel.variable)] = (kernel, pattern)
    order = {id(v): i for i, v in enumerate(model.variables)}
    return [chosen[key] for key in sorted(chosen, key=order.__getitem__)]


def _exact(model, path: str) -> list[Kernel]:
    """The trainable variables of that path that are no kernels."""
    found = {}
    paths = (path, f"{model.name}/{path}")
    for layer in all_layers(model):
        for variable in layer.trainable_variables:
            if variable.path in paths:
                # The innermost layer comes last: the one that owns it.
                attribute = f"{variable.name}_regularizer"
                found[id(variable)] = Kernel(
                    path, variable, layer, "auto", 1, attribute
                )
    return list(found.values())


def _fill(regularizer, kernel: Kernel):
    """A GroupLasso for this kernel; others as they are."""
    if not isinstance(regularizer, GroupLasso):
        return regularizer
    config = regularizer.get_config()
    if config["kind"] == "auto":
        config["kind"] = kernel.kind
        if config["conv_groups"] == 1:
            config["conv_groups"] = kernel.conv_groups
    return type(regularizer).from_config(config)


def _check(regularizer: GroupLasso, kernel: Kernel) -> None:
    try:
        regularizer.partitions(kernel.variable.shape)
    except ValueError as error:
        raise ValueError(f"{kernel.name}: {error}") from error


def _others(regularizer) -> list:
    """What a variable has besides GroupLasso."""
    if regularizer is None or isinstance(regularizer, GroupLasso):
        return []
    if isinstance(regularizer, RegularizerSum):
        return [r for part in regularizer.regularizers for r in _others(part)]
    return [regularizer]
