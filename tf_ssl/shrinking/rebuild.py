"""The smaller model: the same layers, of other sizes, with what stays."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import functional, nodes
from tf_ssl.shrinking.plan import Plan
from tf_ssl.structures.analysis import Findings, Trace, Weights
from tf_ssl.structures.rules.norms import BatchNormalization


class Rebuild:
    """Builds the smaller model.

    Attributes:
        pairs: (variable of the model, variable of the smaller one).
        folded: Names of layers into which constants were folded.
        dropped: Names of sums of which one input went.
    """

    def __init__(
        self,
        found: Trace,
        read: Weights,
        findings: Findings,
        plan: Plan,
        gather_inputs: bool,
    ):
        self._found, self._read = found, read
        self._findings, self._plan = findings, plan
        self._gather_inputs = gather_inputs
        self._made: dict[int, object] = {}  # id of an op -> its successor
        self._rule_of: dict[int, object] = {}
        for rule in found.rules:
            self._rule_of.setdefault(id(rule.op), rule)
        self.pairs: list[tuple] = []
        self.dropped: list[str] = []
        self._masks = self._masks_of_axes()
        self._crops: dict[int, tuple] = {}
        self._crop()
        self._biases, self._means = self._find_folds()
        self._new_biases: list[tuple] = []

    @property
    def folded(self):
        """Names of layers into which constants were folded."""
        ops = {**self._biases, **self._means}
        return sorted(self._rule_of[key].op.name for key in ops)

    def model(self) -> keras.Model:
        """The smaller model."""
        self._next = 0
        model = self._clone(self._found.model, is_outer=True)
        for old, new in self.pairs:
            new.assign(self.slice(old, self._read(old)))
        for variable, delta in self._new_biases:
            variable.assign_add(delta)
        return model

    def slice(self, variable, value: np.ndarray) -> np.ndarray:
        """What stays of a value of a variable, or of an optimizer's slot."""
        if tuple(value.shape) != tuple(variable.shape):
            return value
        owner = self._owner.get(id(variable))
        rule = self._rule_of.get(owner)
        if rule is not None:
            if owner in self._crops and variable is rule.op.kernel:
                value = value[
                    tuple(slice(c, -c or None) for c in self._crops[owner])
                ]
            special = rule.values(variable, value, self._plan.keep)
            if special is not None:
                return special
        for axis, mask in self._masks.get(id(variable), {}).items():
            value = np.compress(mask, value, axis=axis)
        return value

    def _masks_of_axes(self):
        masks: dict[int, dict] = {}
        for variable, _, ids, axis in self._found.tracer.slices:
            if axis is not None:
                keep = self._plan.keep(np.ravel(ids))
                masks.setdefault(id(variable), {})[axis % len(ids.shape)] = keep
        self._owner = {
            id(v): id(rule.op)
            for rule in self._found.rules
            for v in getattr(rule.op, "variables", ())
        }
        return masks

    def _crop(self):
        """Kernels lose rows of taps that are zero."""
        for key, rule in self._rule_of.items():
            kernel = getattr(rule.op, "kernel", None)
            if kernel is None:
                continue
            borders = rule.crop(self.slice(kernel, self._read(kernel)))
            if borders is not None and any(borders):
                self._crops[key] = borders

    def _find_folds(self):
        """What removed constants add: {op: [(bias, delta)]}, {norm: delta}."""
        biases, means = {}, {}
        graph, found = self._found.graph, self._found
        calls_of: dict[int, int] = {}
        consumers: dict = {}
        for c, call in enumerate(graph.calls):
            calls_of[id(call.op)] = calls_of.get(id(call.op), 0) + 1
            for key in call.inputs:
                consumers.setdefault(key, []).append(c)
        for c, (call, rule) in enumerate(
            zip(graph.calls, found.rules, strict=True)
        ):
            key = id(rule.op)
            # A layer that is called again folds once.
            if not rule.is_reader or key in biases or key in means:
                continue
            if not self._findings.live[c]:
                continue
            for i, tensor in enumerate(call.inputs):
                if tensor not in found.tracer.axes:
                    continue
                ids = found.tracer.axes[tensor].ids
                values = self._findings.constants[tensor]
                removed = ~self._plan.keep(ids) & ~np.isnan(values)
                values = np.where(removed, values, 0.0)
                if not values.any():
                    continue
                for bias, delta in rule.folds(self._read, values, i):
                    after = consumers.get(call.outputs[0], [])
                    norm = found.rules[after[0]] if len(after) == 1 else None
                    if (
                        bias is None
                        and isinstance(norm, BatchNormalization)
                        and calls_of[key] == 1
                        and calls_of[id(norm.op)] == 1
                        and call.outputs[0] not in graph.outputs
                        and _is_linear(rule.op)
                    ):
                        means[id(norm.op)] = -delta
                    else:
                        biases.setdefault(key, []).append((bias, delta))
        return biases, means

    def _clone(self, model, is_outer=False):
        """A Functional model of the same layers."""
        function = functional(model)
        tensors = {}
        inputs = []
        for tensor in function.inputs:
            shape = list(tensor.shape)
            axis = self._input_axis(model, tensor, is_outer)
            if axis is not None and not is_outer:
                shape[axis.axis] = int(self._plan.keep(axis.ids).sum())
            new = keras.Input(
                batch_shape=shape, dtype=tensor.dtype, name=tensor.name
            )
            inputs.append(new)
            if axis is not None and is_outer and self._gather_inputs:
                keep = self._plan.keep(axis.ids)
                if not keep.all():
                    new = keras.ops.take(new, np.flatnonzero(keep), axis.axis)
            tensors[id(tensor)] = new
        for node in nodes(function):
            arguments = node.arguments.fill_in(tensors)
            if functional(node.operation) is not None:
                outputs = self._call_nested(node.operation, arguments)
            else:
                c, self._next = self._next, self._next + 1
                outputs = self._call(c, node, arguments, tensors)
            for old, new in zip(
                node.outputs, keras.tree.flatten(outputs), strict=True
            ):
                tensors[id(old)] = new
        if isinstance(model, keras.Sequential):
            made = [self._made.get(id(layer)) for layer in model.layers]
            plain = not (is_outer and self._gather_inputs)
            if plain and all(isinstance(x, keras.Layer) for x in made):
                return keras.Sequential([*inputs, *made], name=model.name)
        outputs = keras.tree.pack_sequence_as(
            function._outputs_struct, [tensors[id(t)] for t in function.outputs]
        )
        inputs = keras.tree.pack_sequence_as(function._inputs_struct, inputs)
        return keras.Model(inputs, outputs, name=model.name)

    def _input_axis(self, model, tensor, is_outer):
        graph = self._found.graph
        position = [id(t) for t in functional(model).inputs].index(id(tensor))
        key = (
            graph.inputs[position]
            if is_outer
            else graph.nested[model][0][position]
        )
        return self._found.tracer.axes.get(key)

    def _call_nested(self, model, arguments):
        if id(model) not in self._made:
            self._made[id(model)] = self._clone(model)
        else:
            self._next += _num_calls(functional(model))
        args, kwargs = arguments
        return self._made[id(model)](*args, **kwargs)

    def _call(self, c, node, arguments, tensors):
        args, kwargs = arguments
        if c in self._findings.dropped:
            return self._without_branch(c, node, tensors)
        op = node.operation
        new = self._made.get(id(op))
        is_first = new is None
        if is_first:
            new = self._made[id(op)] = self._successor(op)
        outputs = new(*args, **kwargs)
        if is_first and isinstance(op, keras.Layer):
            self._pair(op, new)
        return outputs

    def _successor(self, op):
        """A layer or operation of the size that stays."""
        rule = self._rule_of[id(op)]
        successor = rule.successor(self._plan.keep)
        if successor is not None:
            return successor
        before = rule.config(lambda ids: np.ones(np.shape(ids), bool))
        after = rule.config(self._plan.keep)
        changes = {k: v for k, v in after.items() if v != before.get(k)}
        if not isinstance(op, keras.Layer):
            return type(op)(**changes) if changes else op
        config = {**op.get_config(), **changes}
        for bias, _ in self._biases.get(id(op), ()):
            if bias is None:
                config["use_bias"] = True
        if id(op) in self._crops:
            config["kernel_size"] = tuple(
                size - 2 * c
                for size, c in zip(
                    op.kernel_size, self._crops[id(op)], strict=True
                )
            )
        return type(op).from_config(config)

    def _pair(self, op, new):
        old_variables, new_variables = op.variables, new.variables
        if len(old_variables) != len(new_variables):  # a bias was added
            of_name = {v.name: v for v in new_variables}
            new_variables = [of_name[v.name] for v in old_variables]
        pairs = list(zip(old_variables, new_variables, strict=True))
        self.pairs += pairs
        successor = {id(old): new for old, new in pairs}
        for bias, delta in self._biases.get(id(op), ()):
            if bias is None:
                target = getattr(new, "cell", new).bias
                target.assign(np.zeros(target.shape))
                rule = self._rule_of[id(op)]
                delta = delta[self._plan.keep(rule.bias_units())]
            else:
                target = successor[id(bias)]
                delta = self.slice(bias, delta)
            self._new_biases.append((target, delta))
        if id(op) in self._means:
            delta = self.slice(op.moving_mean, self._means[id(op)])
            self._new_biases.append((new.moving_mean, delta))

    def _without_branch(self, c, node, tensors):
        """The input of a sum that stays, shifted by the constant others."""
        call, stays = self._found.graph.calls[c], self._findings.dropped[c]
        offset = sum(
            self._findings.constants[key]
            for i, key in enumerate(call.inputs)
            if i != stays
        )
        axis = self._found.tracer.axes[call.outputs[0]]
        offset = offset[self._plan.keep(axis.ids)]
        trunk = tensors[id(node.input_tensors[stays])]
        self.dropped.append(node.operation.name)
        if (
            not offset.any()
            and call.outputs[0] not in self._found.graph.outputs
        ):
            return trunk
        return keras.layers.Rescaling(
            1.0, offset=offset.tolist(), name=node.operation.name
        )(trunk)


def _is_linear(op):
    activation = getattr(op, "activation", None)
    return activation is None or activation is keras.activations.linear


def _num_calls(function):
    count = 0
    for node in nodes(function):
        inner = functional(node.operation)
        count += 1 if inner is None else _num_calls(inner)
    return count
