"""The smaller model: the same layers, of other sizes, with what stays."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.copying.live_copy import resized_layer
from tf_ssl.graph.rewriting import Rewriter
from tf_ssl.graph.walk import Nested
from tf_ssl.shrinking.plan import Plan
from tf_ssl.structures.analysis import Findings, Trace, Weights
from tf_ssl.structures.rules.normalization import BatchNormalization
from tf_ssl.structures.rules.recurrent.recurrent import states_of


class Rebuild(Rewriter):
    """Builds the smaller model.

    Attributes:
        pairs: (variable of the model, variable of the smaller one).
        dropped: Names of sums of which one input went.
        opened: Names of composite layers whose inner layers took their place.
    """

    def __init__(
        self,
        found: Trace,
        read: Weights,
        findings: Findings,
        plan: Plan,
        gather_inputs: bool,
    ):
        super().__init__(found.graph)
        self._found, self._read = found, read
        self._findings, self._plan = findings, plan
        self._gather_inputs = gather_inputs
        self._rule_of: dict[int, object] = {}
        self._rule_of_call: dict[int, object] = {}
        for call, rule in zip(found.calls, found.rules, strict=True):
            self._rule_of.setdefault(id(rule.op), rule)
            self._rule_of_call[id(call)] = rule
        self._index = {id(call): c for c, call in enumerate(found.calls)}
        self.pairs: list[tuple] = []
        self.dropped: list[str] = []
        self.opened: list[str] = []
        self._masks = self._masks_of_axes()
        self._crops: dict[int, tuple] = {}
        self._crop()
        self._biases, self._means = self._find_folds()
        self._new_biases: list[tuple] = []
        self._is_changed: dict[int, bool] = {}

    @property
    def folded(self):
        """Names of layers into which constants were folded."""
        ops = {**self._biases, **self._means}
        return sorted(self._rule_of[key].op.name for key in ops)

    def model(self) -> keras.Model:
        """The smaller model."""
        model = super().model()
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
        self._cut_variables = set()
        for variable, _, ids, axis, _ in self._found.tracer.slices:
            if not self._plan.keep(ids[ids >= 0]).all():
                self._cut_variables.add(id(variable))
            if axis is not None:
                keep = self._plan.keep(np.ravel(ids))
                axis %= len(ids.shape)
                masks.setdefault(id(variable), {})[axis] = keep
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
        biases: dict = {}
        means: dict = {}
        found = self._found
        outputs = set(map(id, found.graph.outputs))
        calls_of: dict[int, int] = {}
        consumers: dict = {}
        for c, call in enumerate(found.calls):
            calls_of[id(call.op)] = calls_of.get(id(call.op), 0) + 1
            for tensor in call.inputs:
                consumers.setdefault(id(tensor), []).append(c)
        for c, (call, rule) in enumerate(
            zip(found.calls, found.rules, strict=True)
        ):
            key = id(rule.op)
            # A layer that is called again folds once.
            if key in biases or key in means or not self._findings.live[c]:
                continue
            for i, tensor in enumerate(rule.call.inputs):
                values = {}
                for axis in rule.read_axes(i):
                    ids = rule.inputs[i].get(axis)
                    if ids is None:
                        continue
                    known = self._findings.constants[tensor].get(
                        axis, np.full(len(ids), np.nan)
                    )
                    removed = ~self._plan.keep(ids) & ~np.isnan(known)
                    values[axis] = np.where(removed, known, 0.0)
                if not any(v.any() for v in values.values()):
                    continue
                for bias, delta in rule.folds(self._read, values, i):
                    if not np.any(delta):
                        continue
                    after = consumers.get(id(call.outputs[0]), [])
                    norm = found.rules[after[0]] if len(after) == 1 else None
                    if (
                        bias is None
                        and isinstance(norm, BatchNormalization)
                        and norm.axis == rule.shifts()
                        and calls_of[key] == 1
                        and calls_of[id(norm.op)] == 1
                        and id(call.outputs[0]) not in outputs
                    ):
                        means[id(norm.op)] = -delta
                    else:
                        biases.setdefault(key, []).append((bias, delta))
        return biases, means

    # -- what the rewriter asks ------------------------------------------

    def opens(self, nested: Nested) -> bool:
        """All composite layers, but those that train otherwise and stay."""
        opens = not nested.trains_otherwise or self._changes_inside(nested)
        if opens and nested.op.name not in self.opened:
            self.opened.append(nested.op.name)
        return opens

    def _changes_inside(self, nested) -> bool:
        return any(
            self.is_changed(call.op) or self._is_cut(call)
            for call in nested.graph.calls()
        )

    def _is_cut(self, call) -> bool:
        """Whether a tensor that it makes loses units."""
        return any(
            not self._plan.keep(ids).all()
            for tensor in call.outputs
            for ids in self._found.tracer.axes.get(tensor, {}).values()
        )

    def is_changed(self, op) -> bool:
        """Whether a layer or operation has another size, or another value."""
        key = id(op)
        if key not in self._is_changed:
            self._is_changed[key] = self._finds_change(op)
        return self._is_changed[key]

    def _finds_change(self, op) -> bool:
        key, rule = id(op), self._rule_of.get(id(op))
        if rule is None:
            return False
        if key in self._biases or key in self._crops or key in self._means:
            return True
        if any(
            id(v) in self._cut_variables for v in getattr(op, "variables", ())
        ):
            return True
        before = rule.config(lambda ids: np.ones(np.shape(ids), bool))
        return rule.config(self._plan.keep) != before

    def successor(self, op):
        rule = self._rule_of.get(id(op))
        if rule is None or not self.is_changed(op):
            return None
        successor = rule.successor(self._plan.keep)
        if successor is not None:
            return successor
        changes = rule.config(self._plan.keep)
        if not isinstance(op, keras.Layer):
            return _resized_operation(op, changes) if changes else op
        if any(bias is None for bias, _ in self._biases.get(id(op), ())):
            changes = rule.with_bias(changes)
        if id(op) in self._crops:
            changes["kernel_size"] = tuple(
                size - 2 * c
                for size, c in zip(
                    op.kernel_size, self._crops[id(op)], strict=True
                )
            )
        new = resized_layer(op, changes)
        if new is op:
            raise RuntimeError(f"{op.name} was not built anew")
        return new

    def arguments(self, call, args, kwargs):
        rule = self._rule_of_call[id(call)]
        return rule.rearrange(self._plan.keep, args, kwargs)

    def cut(self, tensor, value, source):
        if source.variable is not None:
            value = self._read(source.variable)
        for axis, ids in self._found.tracer.axes.get(tensor, {}).items():
            value = np.compress(self._plan.keep(ids), value, axis=axis)
        return value

    def paired(self, old, new):
        self.pairs.append((old, new))

    def input(self, tensor, is_outer):
        shape = list(tensor.shape)
        onward = super().input(tensor, is_outer)[1]
        for axis, ids in self._found.tracer.axes.get(tensor, {}).items():
            keep = self._plan.keep(ids)
            if keep.all():
                continue
            if not is_outer:
                shape[axis] = int(keep.sum())
            elif self._gather_inputs:
                positions = np.flatnonzero(keep)

                def onward(x, positions=positions, axis=axis):
                    return keras.ops.take(x, positions, axis)

        return tuple(shape), onward

    def called(self, op, new, outputs):
        if isinstance(op, keras.Layer):
            self._pair(op, new)

    def _pair(self, op, new):
        if new is op:
            return
        activation = getattr(new, "activation", None)
        if isinstance(activation, keras.Layer) and not activation.built:
            shape = keras.tree.flatten(new._inbound_nodes[-1].outputs)[0].shape
            activation.build(shape)
        old_variables, new_variables = op.variables, new.variables
        if len(old_variables) != len(new_variables):  # a bias was added
            of_name = {v.name: v for v in new_variables}
            new_variables = [of_name[v.name] for v in old_variables]
        pairs = list(zip(old_variables, new_variables, strict=True))
        self.pairs += [(old, made) for old, made in pairs if not _is_seed(old)]
        # States are in no list of variables.
        self.pairs += zip(_states(op), _states(new), strict=True)
        successor = {id(old): made for old, made in pairs}
        for bias, delta in self._biases.get(id(op), ()):
            if bias is None:
                target = getattr(getattr(new, "layer", new), "cell", None)
                target = (target or getattr(new, "layer", new)).bias
                target.assign(np.zeros(target.shape))
                rule = self._rule_of[id(op)]
                delta = delta[..., self._plan.keep(rule.bias_units())]
            else:
                target = successor[id(bias)]
                delta = self.slice(bias, delta)
            self._new_biases.append((target, delta))
        if id(op) in self._means:
            delta = self.slice(op.moving_mean, self._means[id(op)])
            self._new_biases.append((new.moving_mean, delta))

    def instead(self, call, given):
        """The input of a sum that stays, shifted by the constant others."""
        c = self._index[id(call)]
        if c not in self._findings.dropped:
            return None
        stays, axis = self._findings.dropped[c]
        offset = sum(
            self._findings.constants[tensor][axis]
            for i, tensor in enumerate(call.inputs)
            if i != stays
        )
        ids = self._found.tracer.axes[call.outputs[0]][axis]
        offset = offset[self._plan.keep(ids)]
        trunk = given[stays]
        self.dropped.append(call.op.name)
        outputs = set(map(id, self._found.graph.outputs))
        if not offset.any() and id(call.outputs[0]) not in outputs:
            return trunk
        shape = [1] * (len(call.outputs[0].shape) - 1)
        shape[axis] = -1
        offset = offset if axis == -1 else offset.reshape(shape)
        return keras.layers.Rescaling(
            1.0, offset=offset.tolist(), name=self._named(call.op.name)
        )(trunk)


def _states(layer) -> list:
    """States of a layer, and of the layers inside it."""
    if not isinstance(layer, keras.Layer):  # two directions
        return _states(layer.forward_layer) + _states(layer.backward_layer)
    parts = [layer, *layer._flatten_layers(include_self=False)]
    return [state for part in parts for state in states_of(part)]


def _is_seed(variable) -> bool:
    return "seed_generator" in variable.path


def _resized_operation(op, changes):
    """An operation with other arguments."""
    try:
        config = op.get_config()
        config.pop("name", None)
    except NotImplementedError:
        config = {}
    return type(op)(**{**config, **changes})
