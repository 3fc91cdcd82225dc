"""Which units a network does not need, and which constants they leave."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tf_ssl.graph.walk import Call, Graph, Tensor, build_graph
from tf_ssl.structures.rules import Tracer, has_rule, rule_of
from tf_ssl.structures.rules.contraction import Contraction
from tf_ssl.structures.rules.elementwise import Add
from tf_ssl.structures.rules.moves.cutting import axes_of_key
from tf_ssl.structures.units import Space

# Operations that take only the shape of their argument; Concatenate makes its
# mask with them.
_VALUELESS = ("OnesLike", "ZerosLike")


class Weights:
    """Values of variables; changes stay here.

    Calling it with a variable gives the value, a NumPy array not to be changed.
    """

    def __init__(self):
        self._values: dict[int, np.ndarray] = {}
        self._changed: dict[int, tuple] = {}
        self._memo: dict[int, dict] = {}

    def __call__(self, variable) -> np.ndarray:
        key = id(variable)
        if key not in self._values:
            value = keras.ops.convert_to_numpy(variable)
            if value.dtype.kind not in "fiub":  # bfloat16, float8
                value = value.astype(np.float32)
            self._values[key] = value
        return self._values[key]

    def change(self, variable, value: np.ndarray) -> None:
        """Another value, here only."""
        self._values[id(variable)] = value
        self._changed[id(variable)] = (variable, value)
        self._memo.pop(id(variable), None)

    def remember(self, variable, key, make):
        """What follows from a variable's value alone, made once.

        Args:
            variable: `keras.Variable`.
            key: Hashable.
            make: Function that makes it.
        """
        known = self._memo.setdefault(id(variable), {})
        if key not in known:
            known[key] = make()
        return known[key]

    @property
    def changed(self) -> list[tuple]:
        """(variable, value) of those with another value here."""
        return list(self._changed.values())


@dataclasses.dataclass(eq=False)
class Trace:
    """A model's graph and the units along its tensors.

    Attributes:
        model: The model.
        graph: `Graph`.
        calls: All calls of it, in order.
        rules: One `Rule` a call.
        tracer: `Tracer`, filled.
        roots: Element -> root of its unit.
        fixed: Root -> why the unit must stay.
        input_roots: Roots of units that hold features of the model's inputs.
        exact: Whether what mixes units keeps them.
    """

    model: keras.Model
    graph: Graph
    calls: list[Call]
    rules: list
    tracer: Tracer
    roots: np.ndarray
    fixed: dict
    input_roots: set
    exact: bool


def trace(model, length=None, exact=True) -> Trace:
    """Follows units through a model.

    Args:
        model: Built `keras.Model`.
        length: See `build_graph`.
        exact: False: units may go whose removal changes what normalizations
            and softmaxes compute.

    Raises:
        ValueError: As `build_graph`.
    """
    graph = build_graph(model, has_rule, length)
    calls = graph.calls()
    tracer = Tracer()
    tracer.closed = dict(graph.closed)
    tracer.uses = _uses_of_axes(calls)
    axes = tracer.axes
    for tensor in graph.inputs:
        # Features, not words of a text or pixels of one colour channel only.
        if tensor.rank >= 2 and tensor.shape[-1] is not None:
            space = Space(tensor.name, "input", ("in",))
            axes[tensor] = {-1: tracer.elements.new(tensor.shape[-1], space)}
    inputs = [axes[t][-1] for t in graph.inputs if t in axes]
    rules = []
    for call, is_mask in zip(calls, _of_masks(graph, calls), strict=True):
        rule = rule_of(call)
        rules.append(rule)
        if is_mask and type(call.op).__name__ in _VALUELESS:
            rule.call = dataclasses.replace(call, inputs=[])
        tracer.owner = id(call.op)
        outputs = rule.trace(
            tracer, [dict(axes.get(t, {})) for t in rule.call.inputs]
        )
        for tensor, found in zip(call.outputs, outputs, strict=True):
            axes[tensor] = found
    for tensor in graph.outputs:
        for ids in axes.get(tensor, {}).values():
            tracer.elements.fix(ids, "it is an output of the model")
    tracer.elements.fix_unnamed("no layer makes it")
    roots = tracer.elements.roots(tracer.elements.all())
    input_roots = {int(roots[i]) for ids in inputs for i in ids}
    fixed = tracer.elements.fixed(exact)
    return Trace(
        model, graph, calls, rules, tracer, roots, fixed, input_roots, exact
    )


def _of_masks(graph, calls):
    """For each call, whether its results are parts of masks only."""
    wanted, flags = set(map(id, graph.outputs)), []
    for call in reversed(calls):
        flags.append(wanted.isdisjoint(map(id, call.outputs)))
        if not flags[-1]:
            wanted.update(map(id, call.inputs))
    return flags[::-1]


def _uses_of_axes(calls):
    """What products of two tensors do with axes, followed back to reshapes.

    Returns:
        `Tensor` -> axis from the end -> "summed" over (or taken apart by
        position), or "paired": there in both factors and in the result, such as
        the heads of attention.
    """
    found: dict[Tensor, dict] = {}
    for call in reversed(calls):
        name = type(call.op).__name__
        rule = rule_of(call)
        if name == "DotProductAttention":
            for tensor in call.inputs[:3]:
                found.setdefault(tensor, {}).update(
                    {-1: "summed", -2: "paired"}
                )
        elif isinstance(rule, Contraction) and len(call.inputs) == 2:
            first, second, made = rule.letters() or ("", "", "")
            for tensor, letters in zip(
                call.inputs, (first, second), strict=True
            ):
                for i, x in enumerate(letters):
                    # Not the batch, which is in all of them.
                    if x in first and x in second and (i or x not in made):
                        use = "paired" if x in made else "summed"
                        found.setdefault(tensor, {})[i - len(letters)] = use
        apart = _taken_apart(call, name)
        if apart:
            found.setdefault(call.inputs[0], {}).update(
                dict.fromkeys(apart, "summed")
            )
        if name == "Reshape" or isinstance(rule, Contraction):
            continue
        for tensor in call.inputs:
            for axis, size, use in [
                (axis, len(t.shape), use)
                for t in call.outputs
                for axis, use in found.get(t, {}).items()
            ]:
                # Axes of the input that are there in the output, in order.
                rank = tensor.rank
                stay = [a for a in range(-rank, 0) if a not in apart]
                if name == "Transpose":
                    order = [a % rank for a in call.op.axes or ()]
                    stay = [a - rank for a in order or range(rank)[::-1]]
                if size == len(stay):
                    found.setdefault(tensor, {})[stay[axis]] = use
    return found


def _taken_apart(call, name) -> set:
    """Axes, from the end, of which a call takes single positions."""
    if name in ("Split", "Unstack") and call.inputs:
        rank = call.inputs[0].rank
        return {call.op.axis % rank - rank}
    if name != "GetItem":
        return set()
    key = call.arguments["key"]
    parts = list(key) if isinstance(key, tuple | list) else [key]
    rank = call.inputs[0].rank
    return {
        axis - rank
        for position, axis in axes_of_key(parts, rank)
        if isinstance(parts[position], int)
    }


@dataclasses.dataclass(eq=False)
class Findings:
    """What `analyse` finds.

    Attributes:
        removable: Boolean array, root of a unit -> it can go exactly.
        constants: `Tensor` -> axis -> constants along it, NaN elsewhere.
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


def constants_of(found: Trace, read) -> dict:
    """`Tensor` -> axis -> constants along it, NaN elsewhere."""
    constants: dict = {}

    def unknown(tensor):
        return {
            axis: np.full(len(ids), np.nan)
            for axis, ids in found.tracer.axes.get(tensor, {}).items()
        }

    for tensor in found.graph.inputs:
        constants[tensor] = unknown(tensor)
    for call, rule in zip(found.calls, found.rules, strict=True):
        inputs = [
            _completed(rule.inputs[i], constants[t])
            for i, t in enumerate(rule.call.inputs)
        ]
        outputs = rule.constants(read, inputs)
        for tensor, values in zip(call.outputs, outputs, strict=True):
            one = unknown(tensor)
            for axis, value in values.items():
                if axis in one and len(value) == len(one[axis]):
                    one[axis] = np.asarray(value, np.float64)
            constants[tensor] = one
    return constants


def _completed(axes, values):
    """Values along all axes that a rule follows: NaN where it began to."""
    return {
        axis: values.get(axis, np.full(len(ids), np.nan))
        for axis, ids in axes.items()
    }


def _droppable(found, constants):
    """Sums of which one input at least is constant everywhere."""
    dropped = {}
    for c, (call, rule) in enumerate(
        zip(found.calls, found.rules, strict=True)
    ):
        if not isinstance(rule, Add) or len(call.inputs) < 2:
            continue
        if len(set(call.input_shapes)) != 1:
            continue
        axis = _axis_of_constants(found, call, constants)
        if axis is None:
            continue
        known = [
            not np.isnan(constants[t].get(axis, np.full(1, np.nan))).any()
            for t in call.inputs
        ]
        if known.count(False) == 1:
            dropped[c] = (known.index(False), axis)
    return dropped


def _axis_of_constants(found, call, constants):
    """The axis along which an input is constant everywhere."""
    for tensor in call.inputs:
        for axis, values in constants[tensor].items():
            if len(values) and not np.isnan(values).any():
                return axis
    return None


def _needs(found, read, constants, removable, dropped):
    """Which positions of its inputs a call needs, None if it is not needed;
    and which units that it reads itself are dead.
    """
    axes = found.tracer.axes
    wanted: dict = {}

    def want(tensor):
        if tensor not in wanted:
            wanted[tensor] = {
                axis: np.zeros(len(ids), bool)
                for axis, ids in axes.get(tensor, {}).items()
            }
        return wanted[tensor]

    is_wanted = set(map(id, found.graph.outputs))
    for tensor in found.graph.outputs:
        for live in want(tensor).values():
            live[:] = True
    needs: list = [None] * len(found.calls)
    inner: list = [()] * len(found.calls)
    for c in range(len(found.calls) - 1, -1, -1):
        call, rule = found.calls[c], found.rules[c]
        if is_wanted.isdisjoint(map(id, call.outputs)):
            continue
        if c in dropped:
            stays, _ = dropped[c]
            needs[c] = [
                want(call.outputs[0]) if i == stays else {}
                for i, _ in enumerate(call.inputs)
            ]
            is_wanted.add(id(call.inputs[stays]))
        else:
            outputs = [want(t) for t in call.outputs]
            gone = [
                {
                    axis: removable[found.roots[ids]]
                    for axis, ids in axes.get(t, {}).items()
                }
                for t in call.outputs
            ]
            inputs = rule.call.inputs
            given = [
                _completed(rule.inputs[i], constants[t])
                for i, t in enumerate(inputs)
            ]
            needs[c] = rule.needs(read, outputs, given, gone)
            inner[c] = rule.inner_dead(read, outputs, gone)
            is_wanted.update(map(id, inputs))
        for tensor, need in zip(rule.call.inputs, needs[c], strict=True):
            for axis, live in want(tensor).items():
                if axis in need:
                    live |= need[axis]
                elif c not in dropped:
                    live[:] = True
    return needs, inner


def _removable(found, read, constants, needs, inner, with_inputs):
    """Units that every reader can do without."""
    removable = np.ones(len(found.roots), bool)
    removable[list(found.fixed)] = False
    if not with_inputs:
        removable[list(found.input_roots)] = False
    readers: dict = {}
    ways: dict = {}  # layer -> the ways in which its calls read
    for c, rule in enumerate(found.rules):
        if needs[c] is None:
            continue
        for ids, dead in inner[c]:
            removable[found.roots[ids[~dead]]] = False
        for i in range(len(rule.call.inputs)):
            if rule.read_axes(i) and i < len(needs[c]):
                ways.setdefault(id(rule.op), set()).add(rule.reading())
                readers.setdefault((id(rule.op), i), []).append(c)
    for (op, i), calls in readers.items():
        for axis in found.rules[calls[0]].read_axes(i):
            values = [
                _completed(
                    found.rules[c].inputs[i],
                    constants[found.rules[c].call.inputs[i]],
                )
                for c in calls
            ]
            # A layer that is called again folds once: equal constants, or none.
            same = np.all(
                [v[axis] == values[0][axis] for v in values[1:]], axis=0
            )
            for c, value in zip(calls, values, strict=True):
                rule = found.rules[c]
                if axis not in rule.inputs[i]:
                    continue
                folds = rule.foldable(read, value, i).get(axis)
                if folds is None:
                    continue
                ids = rule.inputs[i][axis]
                if len(ways[op]) > 1:  # nothing fits all of its calls
                    folds = folds & (value[axis] == 0)
                stays = needs[c][i].get(axis, np.ones(len(ids), bool))
                stays = stays & ~(folds & same)
                removable[found.roots[ids[stays]]] = False
    return removable
