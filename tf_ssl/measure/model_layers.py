"""The layers of a model, each with its calls and what they take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_ssl.graph.layer_calls import LayerCall, record
from tf_ssl.measure.multiply_adds import count


@dataclasses.dataclass(frozen=True, eq=False)
class ModelLayer:
    """A layer, or an operation of keras.ops, as one inference sees it.

    Attributes:
        name: `"encoder/conv1"` in a nested model. Layers inside a layer are a
            part of that one.
        layer: `keras.Layer` or `keras.Operation`.
        calls: Its calls.
        multiply_adds: Of one example, layers inside included; None where none
            are counted.
        unknown: Why those of the layer or of layers inside are not known.
    """

    name: str
    layer: Any
    calls: tuple[LayerCall, ...]
    multiply_adds: int | None
    unknown: tuple[str, ...]

    @property
    def variables(self) -> list:
        """Its weights and statistics."""
        if not isinstance(self.layer, keras.Layer):
            return []
        # States of random generators are no weights.
        return [
            v for v in self.layer.variables if "seed_generator" not in v.path
        ]

    @property
    def outputs(self) -> tuple[tuple, ...]:
        """Shapes of its first call's outputs, without the batch."""
        return tuple(shape[1:] for shape in self.calls[0].output_shapes)

    @property
    def kernels(self) -> tuple[tuple, ...]:
        """Shapes of weights of 2 or more dimensions."""
        return tuple(tuple(v.shape) for v in self.variables if len(v.shape) > 1)

    @property
    def reads(self) -> set[str]:
        """Names of the layers that it reads."""
        return {name for call in self.calls for name in call.reads}


def model_layers(model, inputs, batch_size: int) -> dict[str, ModelLayer]:
    """The layers of a model by name, in the order of their first calls.

    Args:
        model: Built `keras.Model`.
        inputs: Arrays in the structure that it takes.
        batch_size: Examples in them.
    """
    calls = record(model, inputs)
    counted = count(model, inputs, calls, batch_size)
    of_layer: dict[str, list[LayerCall]] = {}
    for call in calls:
        if not call.inside:
            of_layer.setdefault(call.name, []).append(call)
    return {
        name: ModelLayer(
            name,
            own[0].layer,
            tuple(own),
            counted.inside(name),
            tuple(
                f"{key}: {reason}"
                for key, reason in counted.unknown.items()
                if key == name or key.startswith(f"{name}/")
            ),
        )
        for name, own in of_layer.items()
    }


def num_parameters(variables: Iterable) -> int:
    """Weights in variables; one that is named twice counts once."""
    return sum(math.prod(v.shape) for v in _once(variables))


def num_bytes(variables: Iterable) -> int:
    """Bytes that variables take; one that is named twice counts once."""
    return sum(
        math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in _once(variables)
    )


def _once(variables):
    return {id(v): v for v in variables}.values()
