"""The kernels of a model, with the kind that a layer's class tells."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from typing import Any

import keras

_CONV = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
# Classes, name of the variable, its kind, the layer's attribute for its
# regularizer. Of LSTM, GRU and SimpleRNN it is the cell that has the weights.
_TABLE = (
    (keras.layers.Dense, "kernel", "dense", "kernel_regularizer"),
    (_CONV, "kernel", "conv", "kernel_regularizer"),
    (_TRANSPOSED, "kernel", "transposed", "kernel_regularizer"),
    (_DEPTHWISE, "kernel", "depthwise", "depthwise_regularizer"),
    (_SEPARABLE, "depthwise_kernel", "depthwise", "depthwise_regularizer"),
    (_SEPARABLE, "pointwise_kernel", "conv", "pointwise_regularizer"),
    (
        keras.layers.Embedding,
        "embeddings",
        "embedding",
        "embeddings_regularizer",
    ),
    (keras.layers.LSTMCell, "kernel", "lstm", "kernel_regularizer"),
    (
        keras.layers.LSTMCell,
        "recurrent_kernel",
        "lstm",
        "recurrent_regularizer",
    ),
    (keras.layers.GRUCell, "kernel", "gru", "kernel_regularizer"),
    (keras.layers.GRUCell, "recurrent_kernel", "gru", "recurrent_regularizer"),
    (keras.layers.SimpleRNNCell, "kernel", "dense", "kernel_regularizer"),
    (
        keras.layers.SimpleRNNCell,
        "recurrent_kernel",
        "dense",
        "recurrent_regularizer",
    ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A variable that groups of weights can be made of.

    Attributes:
        name: Path of the variable without the name of the model, such as
            `"conv1/kernel"`.
        variable: `keras.Variable`.
        layer: The layer, or cell, that owns it.
        kind: "dense", "conv", "transposed", "depthwise", "lstm", "gru" or
            "embedding": see `tf_ssl.GroupLasso`.
        conv_groups: Banks of a grouped convolution, else 1.
        regularizer_name: The layer's attribute for its regularizer.
    """

    name: str
    variable: Any
    layer: keras.layers.Layer
    kind: str
    conv_groups: int
    regularizer_name: str

    def matches(self, pattern: str) -> bool:
        """Whether a pattern (`fnmatch`) is for this kernel.

        It may name the kernel, with or without what it is nested in, or a
        layer that the kernel is in: for `"encoder/lstm1/lstm_cell/kernel"`
        also `"lstm1/*"`, `"lstm_cell/kernel"`, `"lstm1"` and `"encoder"`.
        """
        parts = self.variable.path.split("/")
        names = {"/".join(parts[i:]) for i in range(len(parts) - 1)}
        names |= {self.name, self.layer.name, *parts[:-1]}
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def find_kernels(model: keras.Model) -> list[Kernel]:
    """The kernels of a built model, in the order of its layers.

    Nested models, wrapped layers and cells are looked into, subclassed models
    as well; a shared layer's kernel comes once. Left out are weights of layers
    of other classes, and `EinsumDense` kernels of rank other than 2: what
    their filters are, no class tells.

    >>> inputs = keras.Input([8, 8, 1])
    >>> x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    >>> [(k.name, k.kind) for k in find_kernels(keras.Model(inputs, x))]
    [('conv/kernel', 'conv')]

    Raises:
        ValueError: The model is not built.
    """
    check_built(model)
    found = {}
    for layer in all_layers(model):
        rows = [row for row in _TABLE if isinstance(layer, row[0])]
        if isinstance(layer, keras.layers.EinsumDense) and _is_dense(layer):
            rows = [(None, "kernel", "dense", "kernel_regularizer")]
        for _, name, kind, regularizer_name in rows:
            for variable in layer.variables:
                if variable.name != name or id(variable) in found:
                    continue
                banks = getattr(layer, "groups", 1) if kind == "conv" else 1
                found[id(variable)] = Kernel(
                    variable.path.removeprefix(f"{model.name}/"),
                    variable,
                    layer,
                    kind,
                    banks,
                    regularizer_name,
                )
    return list(found.values())


def no_match(kernels: list[Kernel], pattern: str) -> ValueError:
    """What to raise for a pattern that matches none of the kernels."""
    return ValueError(
        "Invalid value for argument patterns. Expected patterns that "
        "match the path or the layer of a kernel, one of "
        f"{sorted(kernel.name for kernel in kernels)}. "
        f"Received: {pattern!r}"
    )


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Every layer of a model, inside nested models, wrappers and RNNs too."""
    layers = []
    waiting = [model]
    seen = set()
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        layers.append(layer)
        inner = layer._flatten_layers(include_self=False, recursive=False)
        waiting.extend(reversed(inner))
    return layers


def output_layers(model) -> set[int]:
    """The ids of layers with kernels that make a model's outputs.

    Looks through layers without kernels, such as activations. Subclassed
    models have no graph: none.
    """
    of_layer = {id(kernel.layer) for kernel in find_kernels(model)}
    found = set()
    waiting = list(getattr(model, "outputs", None) or ())
    while waiting:
        tensor = waiting.pop()
        layer, node, _ = tensor._keras_history
        if id(layer) in of_layer:
            found.add(id(layer))
        elif getattr(layer, "outputs", None):  # a nested model
            waiting.extend(layer.outputs)
        else:
            inner = getattr(layer, "_flatten_layers", lambda **_: [])()
            kernels = {id(part) for part in inner} & of_layer
            found |= kernels  # an RNN, a wrapper
            if not kernels:
                node = layer._inbound_nodes[node]
                waiting.extend(node.input_tensors)
    return found


def check_built(model: keras.Model) -> None:
    """Raises TypeError unless a model, ValueError unless it is built."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument model. Expected a keras.Model. "
            f"Received: model={model!r}"
        )
    if not model.built or not model.variables:
        raise ValueError(
            "Invalid value for argument model. Expected a built model with "
            "weights: call it on data once, or model.build(input_shape). "
            f"Received: model={model.name!r}"
        )


def _is_dense(layer: keras.layers.EinsumDense) -> bool:
    """Whether the kernel is `[inputs, outputs]`."""
    match = re.fullmatch(r"[^,]+,(\w)(\w)->(.*)", layer.equation)
    return bool(match) and match[1] not in match[3] and match[2] in match[3]
