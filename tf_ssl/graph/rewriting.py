"""A model from a graph: the same calls, with other layers in some places."""

from __future__ import annotations

import re

import keras
import numpy as np

from tf_ssl.graph.copying.live_copy import copy_layer
from tf_ssl.graph.decisions import Decisions
from tf_ssl.graph.dropped_rows import as_dropout
from tf_ssl.graph.names import Names
from tf_ssl.graph.opening.symbolic import with_masks
from tf_ssl.graph.sources import Constant, Rows, Source, weight_like
from tf_ssl.graph.walk import (
    Bind,
    Call,
    Graph,
    Nested,
    Tensor,
    path_of,
)


class Rewriter(Decisions):
    """Builds a model that makes the calls of a graph.

    Layers are copied as they are, with their weights and all that they hold;
    subclasses say what stands in for some of them. Nested models stay nested
    models; a composite layer that `opens` gives way to what is inside.

    Args:
        graph: Of a model.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self._made: dict[int, object] = {}  # id of an op -> what stands for it
        self._memo: dict = {}
        self._sources: dict[int, object] = {}
        self._activations: dict[int, object] = {}
        self._dropouts: dict[int, bool] = {}
        # Operations, in place of a layer that passed masks on, do not: then
        # layers are given masks as arguments.
        self._carries_masks = False
        # Of the model that is being built, and what its layers get first.
        self._names, self._anchor = Names(), None
        # What stands for a layer and what the layer was, both kept alive.
        self.copies: list[tuple] = []
        # Names of layers that did something else in training, and are opened.
        self.training_lost: list[str] = []

    def model(self) -> keras.Model:
        """The new model."""
        return self._model(self.graph, None)

    def _model(self, graph, nested):
        model = graph.model
        env: dict[int, object] = {}
        inputs = []
        for tensor in graph.inputs:
            shape, onward = self.input(tensor, nested is None)
            made = keras.Input(
                batch_shape=shape, dtype=tensor.dtype, name=tensor.name
            )
            inputs.append(made)
            env[id(tensor)] = onward(made)
        outer = self._anchor, self._names
        self._anchor, self._names = inputs[0], Names(graph, inputs)
        chain: list | None = []
        for item in graph.items:
            if isinstance(item, Call) and isinstance(item.op, Bind):
                # What comes in has been bound to an Input.
                if any(item.outputs[0] is t for t in graph.inputs):
                    continue
                if item.parent is nested:
                    continue
            chain = self._item(item, env, chain)
        outputs = [self._symbolic(env[id(t)], inputs[0]) for t in graph.outputs]
        self._names.of_operations(outputs)
        self._anchor, self._names = outer
        if isinstance(model, keras.Sequential) and chain is not None:
            layers = [*inputs, *chain]
            kinds = keras.Layer | keras.KerasTensor
            if not all(isinstance(x, kinds) for x in layers):
                chain = None
        if isinstance(model, keras.Sequential) and chain is not None:
            made = keras.Sequential(layers, name=model.name)
        else:
            made = keras.Model(
                _packed(graph.inputs_structure, inputs),
                _packed(graph.outputs_structure, outputs),
                name=model.name,
            )
        # Not by `trainable`, which sets that of all layers.
        made._trainable = getattr(model, "_trainable", True)
        return made

    def _item(self, item, env, chain):
        """One call; what a Sequential model of the same calls would hold."""
        if isinstance(item, Nested):
            return self._nested(item, env, chain)
        op = item.op
        if isinstance(op, Bind):
            env[id(item.outputs[0])] = env[id(item.inputs[0])]
            return chain
        if isinstance(op, Source):
            env[id(item.outputs[0])] = self._source(item)
            return None
        given = [env[id(t)] for t in item.inputs]
        if isinstance(op, keras.layers.Identity) and item.parent is not None:
            env[id(item.outputs[0])] = given[0]
            return None
        with self._names.free(op):
            outputs = self.instead(item, given)
        if outputs is None:
            args, kwargs = self._filled(item, env)
            args, kwargs = self.arguments(item, args, kwargs)
            new = self._successor(op, item.parent)
            if isinstance(op, keras.Layer):
                args, kwargs = keras.tree.map_structure(
                    self._for_layer, (args, kwargs)
                )
                if self._carries_masks and isinstance(new, keras.Layer):
                    kwargs = with_masks(new, args, kwargs)
            is_first = not any(old is op for old, _ in self.copies)
            # Of rows, what they are made of: no operation of ours.
            call = op.call if isinstance(op, Rows) else new
            outputs = call(*args, **kwargs)
            if is_first:
                self.copies.append((op, new))
                self.called(op, new, outputs)
            for function in (
                *self.following(op),
                *filter(None, [self._activations.get(id(op))]),
            ):
                outputs = function(outputs)
            if chain is not None:
                chain = [*chain, new, *self.following(op)]
        elif chain is not None:
            chain = None
        flat = [x for x in keras.tree.flatten(outputs) if x is not None]
        for tensor, value in zip(item.outputs, flat, strict=True):
            env[id(tensor)] = value
        return chain

    def _filled(self, item, env):
        return keras.tree.map_structure(
            lambda x: env[id(x)] if isinstance(x, Tensor) else x,
            (item.args, item.kwargs),
        )

    def _for_layer(self, x):
        """Layers are called on symbolic tensors, or their weights are lost."""
        is_array = isinstance(x, np.ndarray) or keras.ops.is_tensor(x)
        if is_array and not isinstance(x, keras.KerasTensor) and np.ndim(x):
            return self._symbolic(x, self._anchor)
        return x

    def _symbolic(self, x, anchor):
        if isinstance(x, keras.KerasTensor):
            return x
        value = keras.ops.convert_to_numpy(x)
        return Constant(value, name=self._named("constant"))(anchor)

    def _nested(self, nested, env, chain):
        graph = nested.graph
        is_drop = nested.trains_otherwise and self._is_dropout(nested)
        if not nested.is_model and not is_drop and self.opens(nested):
            if nested.trains_otherwise:
                self.training_lost.append(
                    path_of(nested.op, nested.parent, "/")
                )
            for item in graph.items:
                self._item(item, env, None)
            for tensor, mask in zip(nested.outputs, nested.masks, strict=True):
                made = env[id(tensor)]
                if mask is not None and id(mask) in env:
                    if getattr(made, "_keras_mask", None) is None:
                        made._keras_mask = env[id(mask)]
                        self._carries_masks = True
            return None
        key = id(nested.op)
        args, kwargs = self._filled(nested, env)
        if is_drop:
            args, kwargs = args[:1], {}
        elif self._carries_masks:
            kwargs = with_masks(nested.op, args, kwargs)
        if nested.is_model:
            if key not in self._made:
                made = self._model(graph, nested)
                if isinstance(nested.op, keras.layers.TimeDistributed):
                    made = keras.layers.TimeDistributed(
                        made, name=nested.op.name
                    )
                self._made[key] = made
            new = self._made[key]
        else:
            new = self._successor(nested.op, nested.parent)
        outputs = new(*args, **kwargs)
        flat = [x for x in keras.tree.flatten(outputs) if x is not None]
        for tensor, value in zip(nested.outputs, flat, strict=True):
            env[id(tensor)] = value
        return None if chain is None else [*chain, new]

    def _is_dropout(self, nested) -> bool:
        """Whether a Dropout, which it makes, stands in for a layer."""
        op, key = nested.op, id(nested.op)
        tensors = [x for x in nested.args if isinstance(x, Tensor)]
        if key not in self._dropouts:
            self._dropouts[key] = False
            name = path_of(op, nested.parent, "_")
            dropout = None
            if len(tensors) == 1 and not op.trainable_variables:
                dropout = as_dropout(op, tensors[0].shape, name)
            if dropout is not None:
                dropout.name = self._named(name)
                self._made[key] = dropout
                self._dropouts[key] = True
        return self._dropouts[key]

    def _successor(self, op, parent):
        key = id(op)
        if key not in self._made:
            new = self.successor(op)
            if new is None or new is op:
                new = copy_layer(op, self._memo)
            if parent is not None and not parent.is_model:
                name = path_of(op, parent, "_")
                if not isinstance(op, keras.Layer):
                    # Without the number that depends on what went before.
                    name = re.sub(r"_\d+$", "", name)
                new.name = self._named(name)
                if isinstance(new, keras.Layer):
                    self._plain(op, new)
            elif not self._names.keeps(op):
                new.name = self._named(op.name)
            self._made[key] = new
        return self._made[key]

    def _plain(self, op, new):
        """Functions of other libraries become operations behind a layer."""
        activation = getattr(new, "activation", None)
        module = getattr(activation, "__module__", None) or "keras.src"
        if isinstance(activation, keras.Layer) or module.startswith(
            "keras.src"
        ):
            return
        new.activation = keras.activations.linear
        self._activations[id(op)] = activation

    def _named(self, name):
        """A name that nothing else in the new model has."""
        return self._names.new(name)

    def _source(self, call):
        source = call.op
        key = id(source.value)
        if key not in self._sources:
            value = keras.ops.convert_to_numpy(source.value)
            value = self.cut(call.outputs[0], value, source)
            if source.variable is None:
                self._sources[key] = value
            else:
                self._sources[key] = self._weight(call, value)
        made = self._sources[key]
        return made if isinstance(made, np.ndarray) else made(self._anchor)

    def _weight(self, call, value):
        variable = call.op.variable
        name = (
            path_of(variable, call.parent, "_")
            if call.parent
            else variable.name
        )
        weight = weight_like(call.op, value, self._named(name))
        self.paired(variable, weight.value)
        return weight


def _packed(structure, flat):
    if isinstance(structure, keras.KerasTensor) or structure is None:
        return flat[0]
    given = iter(flat)
    return keras.tree.map_structure(
        lambda x: None if x is None else next(given), structure
    )
