"""The table of rules that count multiply-adds, open to users' layers."""

from __future__ import annotations

from collections.abc import Callable

import keras

from tf_ssl.graph.layer_calls import LayerCall

_RULES: dict = {}  # class, or name of a class of keras.ops -> rule

# A subclass of these may compute anything.
_GENERIC = (
    keras.Layer,
    keras.Operation,
    keras.Model,
    keras.layers.Wrapper,
    keras.layers.Lambda,
)
# Operations of keras.ops that multiply and add but have no rule.
_HEAVY = {
    "Conv",
    "ConvTranspose",
    "Correlate",
    "DepthwiseConv",
    "Inner",
    "SeparableConv",
    "Tensordot",
    "Vdot",
}


class UnknownError(Exception):
    """The multiply-adds of a call are not known; the message says why."""


def multiply_add_rule(*layers) -> Callable:
    """Decorator: the function below counts the multiply-adds of these layers.

    Args:
        *layers: Layer classes; for operations of keras.ops, which are not
            public classes, their names, such as "Matmul".

    Returns:
        Decorator of a function from (layer, `LayerCall`) to the multiply-adds
        of the call over its whole batch. Layers inside such a layer are not
        counted again.

    >>> from tf_ssl.measure.multiply_adds import multiply_adds
    >>> class Square(keras.Layer):
    ...     def call(self, x):
    ...         return x * x
    >>> @multiply_add_rule(Square)
    ... def square(layer, call):
    ...     batch_size, features = call.input_shapes[0]
    ...     return batch_size * features
    >>> images = keras.Input((3,))
    >>> model = keras.Model(images, Square(name="square")(images))
    >>> multiply_adds(model)
    {'square': 3}
    """

    def register(rule):
        for layer in layers:
            _RULES[layer] = rule
        return rule

    return register


def rule_of(call: LayerCall) -> Callable | None:
    """The rule of a call; None if nothing in it is counted.

    Raises:
        UnknownError: There is no rule, or a size is not known.
    """
    kind = type(call.layer)
    if isinstance(call.layer, keras.Layer):
        rule = _inherited_rule(kind)
        if rule is None:
            return None
    else:
        rule = _RULES.get(kind.__name__)
        if rule is None:
            heavy = kind.__name__ in _HEAVY
            if heavy or kind.__module__ == "keras.src.ops.linalg":
                raise UnknownError(
                    f"the operation {kind.__name__} has no rule; add one with "
                    f'@tf_ssl.multiply_add_rule("{kind.__name__}")'
                )
            return None
    if any(None in shape for shape in call.input_shapes + call.output_shapes):
        raise UnknownError("it works on tensors of unknown size")
    return rule


def has_rule(layer) -> bool:
    """Whether the multiply-adds of a layer are counted as a whole."""
    try:
        _inherited_rule(type(layer))
    except UnknownError:
        return False
    return True


def multiplies(op) -> bool:
    """Whether it is an operation of keras.ops that multiplies and adds."""
    kind = type(op)
    return not isinstance(op, keras.Layer) and (
        kind.__name__ in _HEAVY
        or kind.__name__ in _RULES
        or kind.__module__ == "keras.src.ops.linalg"
    )


def _inherited_rule(kind) -> Callable | None:
    """Of the nearest class with one; None: Keras counts nothing there."""
    bases = kind.__mro__
    bases = bases[: next(i for i, b in enumerate(bases) if b in _GENERIC)]
    for base in bases:
        if base in _RULES:
            return _RULES[base]
    if not any(base.__module__.startswith("keras.") for base in bases):
        raise UnknownError(
            f"the layer {kind.__name__} has no rule; add one with "
            f"@tf_ssl.multiply_add_rule({kind.__name__})"
        )
    return None
