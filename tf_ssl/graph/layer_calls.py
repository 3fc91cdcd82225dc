"""Every call of every layer while a model runs, with the shapes it saw."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

# Functions of keras.ops that layers' own code multiplies with.
_PRODUCTS = (
    "conv",
    "conv_transpose",
    "correlate",
    "depthwise_conv",
    "dot",
    "dot_product_attention",
    "einsum",
    "inner",
    "matmul",
    "separable_conv",
    "tensordot",
    "vdot",
)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer, or of an operation of keras.ops.

    Attributes:
        name: Of the layer; `"encoder/conv1"` inside a nested model or a layer
            named `encoder`.
        layer: `keras.Layer` or `keras.Operation`.
        args: Positional arguments, `tf.TensorSpec`s in place of tensors.
        kwargs: Likewise.
        outputs: Likewise.
        inside: Names of the layers, outermost first, that made this call;
            nested models are not among them.
        reads: Names of the layers whose outputs are among its inputs.
    """

    name: str
    layer: Any
    args: tuple
    kwargs: dict
    outputs: Any
    inside: tuple[str, ...]
    reads: tuple[str, ...]

    @property
    def input_shapes(self) -> list[tuple]:
        """Of all tensors among the arguments, `[batch, ...]`."""
        return _shapes((self.args, self.kwargs))

    @property
    def output_shapes(self) -> list[tuple]:
        """Of all results."""
        return _shapes(self.outputs)

    def argument(self, name: str):
        """An argument by its name in the layer's `call`; None if not given."""
        signature = inspect.signature(type(self.layer).call)
        bound = signature.bind(self.layer, *self.args, **self.kwargs)
        return bound.arguments.get(name)


def record(model: keras.Model, inputs) -> list[LayerCall]:
    """The calls of one inference, in the order in which they begin.

    The model is traced, not run; nothing of it changes.

    Args:
        model: Built `keras.Model`, subclasses included.
        inputs: Arrays in the structure that the model takes.

    Returns:
        Calls of all layers, those made by other layers included, and of the
        products of keras.ops that layers' own code makes. A layer that is
        called k times is there k times.
    """
    recorder = _Recorder()

    def inference(inputs):
        # TensorFlow traces again if the first time made variables, such as
        # Keras' own seed generator.
        recorder.restart()
        # Losses and statistics that layers write stay out of the model.
        with keras.StatelessScope():
            return model(inputs, training=False)

    specs = keras.tree.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype), inputs
    )
    with contextlib.ExitStack() as stack:
        for name, operation in operations(model):
            stack.enter_context(recorder.listening(name, operation))
        stack.enter_context(recorder.listening_to_products())
        tf.function(inference, autograph=False).get_concrete_function(specs)
    return recorder.calls


def operations(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Layers and operations of a model with their names, each once.

    Those inside layers come after them; nested models are taken apart.
    """
    seen = set()

    def visit(parent, prefix):
        if isinstance(parent, keras.Model) and hasattr(parent, "operations"):
            children = parent.operations
        elif isinstance(parent, keras.Model):
            children = parent.layers
        else:
            children = parent._flatten_layers(
                include_self=False, recursive=False
            )
        for child in children:
            if id(child) in seen or isinstance(child, keras.layers.InputLayer):
                continue
            seen.add(id(child))
            name = prefix + child.name
            if not isinstance(child, keras.Model):
                yield name, child
            if isinstance(child, keras.Layer):
                yield from visit(child, f"{name}/")

    yield from visit(model, "")


class _Recorder:
    def __init__(self):
        self.restart()

    def restart(self):
        """Forgets all calls."""
        self.calls: list = []
        self._inside: list[str] = []
        self._makers: dict[int, str] = {}
        self._tensors: list = []  # keeps them, and with them their ids

    @contextlib.contextmanager
    def listening(self, name, operation):
        """Writes down the calls of an operation while it lasts."""
        before = operation.__dict__.get("call")
        # Not by setattr: Keras would track what is assigned to a layer.
        operation.__dict__["call"] = self._wrap(name, operation)
        try:
            yield
        finally:
            if before is None:
                del operation.__dict__["call"]
            else:
                operation.__dict__["call"] = before

    @contextlib.contextmanager
    def listening_to_products(self):
        """Writes down `keras.ops.matmul` and its like inside layers."""
        originals = {name: getattr(keras.ops, name) for name in _PRODUCTS}
        operator = tf.Tensor.__matmul__  # a @ b
        try:
            for name, original in originals.items():
                listener = self._product(name, original, original)
                setattr(keras.ops, name, listener)
            tf.Tensor.__matmul__ = self._product(
                "matmul", operator, originals["matmul"]
            )
            yield
        finally:
            tf.Tensor.__matmul__ = operator
            for name, original in originals.items():
                setattr(keras.ops, name, original)

    def _product(self, name, original, function):
        @functools.wraps(original)
        def call(*args, **kwargs):
            outputs = original(*args, **kwargs)
            if self._inside and tf.is_tensor(outputs):
                self.calls.append(
                    self._product_call(name, function, args, kwargs, outputs)
                )
            return outputs

        return call

    def _product_call(self, name, function, args, kwargs, outputs):
        # On symbolic tensors the function makes the operation.
        args, kwargs = keras.tree.map_structure(
            lambda x: (
                keras.KerasTensor(
                    x.shape, keras.backend.standardize_dtype(x.dtype)
                )
                if tf.is_tensor(x)
                else x
            ),
            (args, kwargs),
        )
        operation = function(*args, **kwargs)._keras_history.operation
        given = operation._inbound_nodes[-1].arguments
        args, kwargs = keras.tree.map_structure(
            lambda x: (
                tf.TensorSpec(x.shape, x.dtype)
                if isinstance(x, keras.KerasTensor)
                else x
            ),
            (given.args, given.kwargs),
        )
        return LayerCall(
            f"{self._inside[-1]}/{name}",
            operation,
            args,
            kwargs,
            _to_specs(outputs),
            tuple(self._inside),
            (),
        )

    def _wrap(self, name, operation):
        original = operation.call

        @functools.wraps(original)
        def call(*args, **kwargs):
            position = len(self.calls)
            self.calls.append(None)
            inside = tuple(self._inside)
            self._inside.append(name)
            try:
                outputs = original(*args, **kwargs)
            finally:
                self._inside.pop()
            read = [self._makers.get(id(t)) for t in _tensors((args, kwargs))]
            self.calls[position] = LayerCall(
                name,
                operation,
                _to_specs(args),
                _to_specs(kwargs),
                _to_specs(outputs),
                inside,
                tuple(dict.fromkeys(r for r in read if r is not None)),
            )
            for tensor in _tensors(outputs):
                # Some layers return what they were given.
                self._makers.setdefault(id(tensor), name)
                self._tensors.append(tensor)
            return outputs

        return call


def _tensors(structure) -> list:
    return [x for x in keras.tree.flatten(structure) if tf.is_tensor(x)]


def _to_specs(structure):
    return keras.tree.map_structure(
        lambda x: tf.type_spec_from_value(x) if tf.is_tensor(x) else x,
        structure,
    )


def _shapes(structure) -> list[tuple]:
    return [
        tuple(x.shape)
        for x in keras.tree.flatten(structure)
        if isinstance(x, tf.TypeSpec)
    ]
