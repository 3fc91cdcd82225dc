"""Which units a network does not need, and which constants they leave."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tf_ssl.graph.walk import Graph, build_graph
from tf_ssl.structures.rules import Tracer, rule_of
from tf_ssl.structures.rules.joins import Add
from tf_ssl.structures.units import Axis, Space

# Operations that take only the shape of their argument; Concatenate makes its
# mask with them.
_VALUELESS = ("OnesLike", "ZerosLike")


class Weights:
    """Values of variables; changes stay here.

    Calling it with a variable gives the value, a NumPy array not to be changed.
    """

    def __init__(self):
        self._values: dict[int, np.ndarray] = {}
        self._changed: set[int] = set()

    def __call__(self, variable) -> np.ndarray:
        key = id(variable)
        if key not in self._values:
            self._values[key] = keras.ops.convert_to_numpy(variable)
        return self._values[key]

    def change(self, variable, value: np.ndarray) -> None:
        """Another value, here only."""
        self._values[id(variable)] = value
        self._changed.add(id(variable))

    def is_changed(self, variable) -> bool:
        """Whether it has another value here."""
        return id(variable) in self._changed


@dataclasses.dataclass(eq=False)
class Trace:
    """A model's graph and the units along its tensors.

    Attributes:
        model: The model.
        graph: `Graph`.
        rules: One `Rule` a call of the graph.
        tracer: `Tracer`, filled.
        roots: Element -> root of its unit.
        fixed: Root -> why the unit must stay.
        input_roots: Roots of units that hold features of the model's inputs.
    """

    model: keras.Model
    graph: Graph
    rules: list
    tracer: Tracer
    roots: np.ndarray
    fixed: dict
    input_roots: set


def trace(model) -> Trace:
    """Follows units through a model.

    Raises:
        ValueError: As `build_graph`.
    """
    graph = build_graph(model)
    tracer = Tracer()
    axes = tracer.axes
    for key, name in zip(graph.inputs, graph.input_names, strict=True):
        shape = graph.shapes[key]
        # Features, not words of a text or pixels of one colour channel only.
        if len(shape) >= 2 and shape[-1] is not None:
            ids = tracer.elements.new(shape[-1], Space(name, "input", ("in",)))
            axes[key] = Axis(-1, ids)
    inputs = [axes[key].ids for key in graph.inputs if key in axes]
    rules = []
    for call, is_mask in zip(graph.calls, _of_masks(graph), strict=True):
        rule = rule_of(call)
        rules.append(rule)
        if is_mask and type(call.op).__name__ in _VALUELESS:
            continue
        outputs = rule.trace(tracer, [axes.get(key) for key in call.inputs])
        for key, axis in zip(call.outputs, outputs, strict=True):
            if axis is not None:
                axes[key] = axis
    for key in graph.outputs:
        if key in axes:
            tracer.elements.fix(axes[key].ids, "it is an output of the model")
    roots = tracer.elements.roots(tracer.elements.all())
    input_roots = {int(roots[i]) for ids in inputs for i in ids}
    return Trace(
        model, graph, rules, tracer, roots, tracer.elements.fixed(), input_roots
    )


def _of_masks(graph):
    """For each call, whether its results are parts of masks only."""
    wanted, flags = set(graph.outputs), []
    for call in reversed(graph.calls):
        flags.append(wanted.isdisjoint(call.outputs))
        if not flags[-1]:
            wanted.update(call.inputs)
    return flags[::-1]


@dataclasses.dataclass(eq=False)
class Findings:
    """What `analyse` finds.

    Attributes:
        removable: Boolean array, root of a unit -> it can go exactly.
        constants: Key of a tensor -> constants along its axis, NaN elsewhere.
        dropped: Index of a call of Add -> index of the input that stays; the
            others are constant everywhere.
        live: Booleans, one a call: its result has an influence.
    """

    removable: np.ndarray
    constants: dict
    dropped: dict
    live: list


def analyse(
    found: Trace, read, with_inputs=False, drop_blocks=True, exact=True
) -> Findings:
    """Finds what can go.

    Args:
        found: `trace(model)`.
        read: Function from a variable to its value.
        with_inputs: Features of the inputs can go, too.
        drop_blocks: Residual branches can go as wholes.
        exact: A constant that padding interrupts is none.
    """
    for rule in found.rules:
        rule.exact = exact
    constants = constants_of(found, read)
    dropped = _droppable(found, constants) if drop_blocks else {}
    removable = np.zeros(len(found.roots), bool)
    while True:
        needs, inner = _needs(found, read, constants, removable, dropped)
        now = _removable(found, read, constants, needs, inner, with_inputs)
        if np.array_equal(now, removable):
            live = [need is not None for need in needs]
            return Findings(removable, constants, dropped, live)
        removable = now


def _length(found, key):
    axis = found.tracer.axes.get(key)
    return 0 if axis is None else len(axis.ids)


def constants_of(found: Trace, read) -> dict:
    """Key of a tensor -> constants along its axis, NaN elsewhere."""
    constants = {
        key: np.full(_length(found, key), np.nan) for key in found.graph.inputs
    }
    for call, rule in zip(found.graph.calls, found.rules, strict=True):
        inputs = [constants[key] for key in call.inputs]
        outputs = rule.constants(read, inputs)
        for key, values in zip(call.outputs, outputs, strict=True):
            if len(values) != _length(found, key):
                values = np.full(_length(found, key), np.nan)
            constants[key] = np.asarray(values, np.float64)
    return constants


def _droppable(found, constants):
    """Sums of which one input at least is constant everywhere."""
    dropped = {}
    for c, (call, rule) in enumerate(
        zip(found.graph.calls, found.rules, strict=True)
    ):
        if not isinstance(rule, Add) or len(call.inputs) < 2:
            continue
        if len(set(call.input_shapes)) != 1:
            continue
        known = [
            len(constants[key]) > 0 and not np.isnan(constants[key]).any()
            for key in call.inputs
        ]
        if known.count(False) == 1:
            dropped[c] = known.index(False)
    return dropped


def _needs(found, read, constants, removable, dropped):
    """Which positions of its inputs a call needs, None if it is not needed;
    and which units that it reads itself are dead.
    """
    graph = found.graph
    wanted = {key: np.zeros(_length(found, key), bool) for key in graph.shapes}
    is_wanted = set(graph.outputs)
    for key in graph.outputs:
        wanted[key][:] = True
    needs = [None] * len(graph.calls)
    inner = [()] * len(graph.calls)
    for c in range(len(graph.calls) - 1, -1, -1):
        call, rule = graph.calls[c], found.rules[c]
        if not is_wanted.intersection(call.outputs):
            continue
        if c in dropped:
            needs[c] = [
                wanted[call.outputs[0]]
                if i == dropped[c]
                else np.zeros(_length(found, key), bool)
                for i, key in enumerate(call.inputs)
            ]
            is_wanted.add(call.inputs[dropped[c]])
        else:
            outputs = [wanted[key] for key in call.outputs]
            gone = _at(found, call.outputs, removable)
            needs[c] = rule.needs(
                read, outputs, [constants[key] for key in call.inputs], gone
            )
            inner[c] = rule.inner_dead(read, outputs, gone)
            is_wanted.update(call.inputs)
        for key, need in zip(call.inputs, needs[c], strict=True):
            if len(need) == len(wanted[key]):
                wanted[key] |= need
            else:
                wanted[key][:] = True
    return needs, inner


def _at(found, keys, units):
    """By position of tensors what is known by unit."""
    axes = found.tracer.axes
    return [
        units[found.roots[axes[key].ids]] if key in axes else np.zeros(0, bool)
        for key in keys
    ]


def _removable(found, read, constants, needs, inner, with_inputs):
    """Units that every reader can do without."""
    removable = np.ones(len(found.roots), bool)
    removable[list(found.fixed)] = False
    if not with_inputs:
        removable[list(found.input_roots)] = False
    readers = {}
    for c, rule in enumerate(found.rules):
        if needs[c] is None:
            continue
        for ids, dead in inner[c]:
            removable[found.roots[ids[~dead]]] = False
        if rule.is_reader:
            readers.setdefault(id(rule.op), []).append(c)
    for calls in readers.values():
        for i in range(len(found.graph.calls[calls[0]].inputs)):
            keys = [found.graph.calls[c].inputs[i] for c in calls]
            values = [constants[key] for key in keys]
            # A layer that is called again folds once: equal constants, or none.
            same = np.all([v == values[0] for v in values[1:]], axis=0)
            for c, key, value in zip(calls, keys, values, strict=True):
                if key not in found.tracer.axes:
                    continue
                folds = found.rules[c].foldable(read, value, i) & same
                stays = needs[c][i] & ~folds
                ids = found.tracer.axes[key].ids
                removable[found.roots[ids[stays]]] = False
    return removable
