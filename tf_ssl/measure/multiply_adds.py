"""Multiply-adds of one example, layer by layer."""

from __future__ import annotations

import keras

from tf_ssl.graph.inputs import (
    check_model,
    inputs_for,
    open_size,
    static_batch,
)
from tf_ssl.graph.layer_calls import LayerCall, record
from tf_ssl.graph.walk import Nested, build_graph
from tf_ssl.measure import multiply_add_rules  # noqa: F401  it fills the table
from tf_ssl.measure.multiply_add_table import (
    UnknownError,
    has_rule,
    multiplies,
    rule_of,
)


class MultiplyAdds(dict):
    """Layer's name -> multiply-adds of one example.

    Attributes:
        unknown: Layer's name -> why its multiply-adds are not known.
    """

    def __init__(self, counts=(), unknown=()):
        super().__init__(counts)
        self.unknown: dict[str, str] = dict(unknown)

    @property
    def total(self) -> int:
        """Sum over layers, without unknown ones."""
        return sum(self.values())

    def inside(self, name: str) -> int | None:
        """Of a layer and of those inside it; None if nothing is counted.

        >>> MultiplyAdds({"block/conv": 3, "block/dense": 4}).inside("block")
        7
        """
        found = [
            number
            for key, number in self.items()
            if key == name or key.startswith(f"{name}/")
        ]
        return sum(found) if found else None


def multiply_adds(model: keras.Model, sample=None) -> MultiplyAdds:
    """Counts the multiply-adds of one example.

    Convolutions, dense layers, attention, recurrent layers and matrix products
    are counted; windows that reach into the padding count in full, as in the
    papers. Not counted is what works element by element: biases, activations,
    gates of recurrent layers, BatchNormalization and other norms; nor pooling
    and resizing. An Embedding is 0.

    A layer that is called k times counts k times; one in a nested model has
    the name `"<model>/<layer>"`, one in a composite layer, and a product of
    keras.ops that its code makes, `"<composite>/<layer>"`.

    Args:
        model: Built `keras.Model`.
        sample: Array, or arrays in the structure that the model takes, with a
            batch axis; only their sizes matter. Needed where the model's inputs
            have sizes of None, and for subclasses of keras.Model that do not
            open on symbolic tensors.

    Returns:
        `MultiplyAdds`: a dict from the names of layers with a rule to integers.
        Its `unknown` names layers without one whose code does more than to
        call layers and keras.ops: add a rule with
        `@tf_ssl.multiply_add_rule(Layer)`. Layers inside those are counted
        under names of their own.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not built, or the sizes of its inputs are not known.

    >>> images = keras.Input((28, 28, 1))
    >>> x = keras.layers.Conv2D(20, 5, name="conv1")(images)
    >>> x = keras.layers.Flatten()(x)
    >>> model = keras.Model(images, keras.layers.Dense(10, name="logits")(x))
    >>> multiply_adds(model)
    {'conv1': 288000, 'logits': 115200}
    """
    check_model(model)
    batch_size = static_batch(model) or 1
    inputs = inputs_for(model, batch_size, sample)
    return count(model, inputs, record(model, inputs), batch_size)


def count(
    model, inputs, calls: list[LayerCall], batch_size: int
) -> MultiplyAdds:
    """Multiply-adds of recorded calls.

    Args:
        model: Whose calls they are.
        inputs: On which.
        calls: Of one inference, as `layer_calls.record` returns them.
        batch_size: Examples in it.
    """
    counts: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for call in calls:
        if any(outer in counts for outer in call.inside):
            continue
        try:
            rule = rule_of(call)
            if rule is None:
                continue
            number = rule(call.layer, call)
        except UnknownError as error:
            unknown[call.name] = str(error)
        else:
            counts[call.name] = counts.get(call.name, 0) + number
    for name in _counted_inside(model, inputs, calls, unknown):
        del unknown[name]
    return MultiplyAdds(
        {name: number // batch_size for name, number in counts.items()},
        unknown,
    )


def _counted_inside(model, inputs, calls, unknown) -> list[str]:
    """Composite layers without a rule of which nothing escaped the counting.

    On symbolic tensors they show all that they do: no more products than
    were recorded.
    """
    layers = {call.name: call.layer for call in calls if call.name in unknown}
    layers = {k: x for k, x in layers.items() if isinstance(x, keras.Layer)}
    if not layers:
        return []
    try:
        graph = build_graph(model, _is_keras_own, open_size(model, inputs))
    except ValueError:  # It does not open.
        return []
    shown: dict[int, int] = {}
    waiting = [(item, ()) for item in graph.items]
    while waiting:
        item, outer = waiting.pop()
        if isinstance(item, Nested):
            inside = outer if item.is_model else (*outer, id(item.op))
            for key in inside[len(outer) :]:
                shown.setdefault(key, 0)
            if item.is_model or not has_rule(item.op):
                waiting += [(x, inside) for x in item.graph.items]
        elif multiplies(item.op):
            for key in set(outer):
                shown[key] += 1
    recorded = dict.fromkeys(layers, 0)
    for call in calls:
        if multiplies(call.layer):
            for name in set(call.inside) & recorded.keys():
                recorded[name] += 1
    # What is made of numbers alone is recorded, and not shown.
    return [
        name
        for name, layer in layers.items()
        if id(layer) in shown and shown[id(layer)] <= recorded[name]
    ]


def _is_keras_own(layer) -> bool:
    # Not has_rule: a subclass may take arguments of which Keras' class, called
    # on symbolic tensors, knows nothing; opened it shows its shapes.
    return type(layer).__module__.startswith("keras.src")
