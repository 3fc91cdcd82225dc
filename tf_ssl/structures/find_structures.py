"""The units of a model that it could lose, found by following them."""

from __future__ import annotations

import fnmatch

import numpy as np

from tf_ssl.structures.analysis import Trace, Weights, analyse, trace
from tf_ssl.structures.rules import Unknown
from tf_ssl.structures.rules.contraction import (
    Contraction,
    DotProductAttention,
)
from tf_ssl.structures.structure import Slice, Structure, Structures


def find_structures(
    model, exclude=(), *, length=None, allow_inexact=False
) -> Structures:
    """Finds what a model can lose, unit by unit.

    A unit is a filter, a neuron, a head, a dimension of an embedding or a
    feature of the input, with every weight that makes, scales or reads it,
    through sums, products, concatenations and reshapes, in nested models as
    well. Layers joined by a sum share their units.

    >>> import tf_ssl
    >>> import keras
    >>> inputs = keras.Input([4])
    >>> x = keras.layers.Dense(3, name="hidden")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="out")(x))
    >>> [(s.name, s.size, s.kind) for s in tf_ssl.find_structures(model)][1:]
    [('hidden/units', 3, 'units')]

    Composite layers and subclassed models are opened: called on symbolic
    tensors, they show the layers inside.

    Args:
        model: Built `keras.Model`. It is not changed.
        exclude: Patterns (`fnmatch`) of structures' or layers' names to leave
            out.
        length: Integer: the size of what the model's inputs leave open, for
            composite layers that open only then; see `tf_ssl.shrink`.
        allow_inexact: Also finds units that a LayerNormalization, a
            GroupNormalization or a softmax mixes: without them the others
            change.

    Returns:
        `Structures`, in the order of the model's layers. Its `skipped` names
        what cannot be followed or must stay, with the reason.

    Raises:
        ValueError: The model is not built, or is a subclass with Python code
            that does not open; a pattern matches nothing.
    """
    return structures_of(trace(model, length, not allow_inexact), exclude)


def structures_of(found: Trace, exclude=()) -> Structures:
    """The structures of a traced model."""
    if isinstance(exclude, str):
        raise TypeError(
            "Invalid type for argument exclude. Expected a tuple of patterns. "
            f"Received: exclude={exclude!r}"
        )
    groups, skipped = _group(found)
    structures = []
    matched = set()
    for spaces, roots in groups:
        space = next(s for s in spaces if s.is_named)
        name = f"{space.name}/{space.kind}"
        hits = {
            pattern
            for pattern in exclude
            for text in (name, *(s.name for s in spaces))
            if fnmatch.fnmatchcase(text, pattern)
        }
        matched |= hits
        if hits:
            skipped.append((name, f"excluded by {min(hits)!r}"))
            continue
        structure = _structure(found, name, spaces, roots)
        if structure.slices:
            structures.append(structure)
    for pattern in exclude:
        if pattern not in matched:
            raise ValueError(
                "Invalid value for argument exclude. Expected patterns that "
                f"match a structure. Received: exclude={pattern!r}. "
                f"Structures: {', '.join(s.name for s in structures)}"
            )
    _number_repeated(structures)
    _count_what_kills(found, structures)
    named = {name for name, _ in skipped}
    refused = {
        rule.name: rule.reason
        for rule in found.rules
        if getattr(rule, "reason", None) and isinstance(rule, Unknown)
    }
    skipped += [
        (name, reason)
        for name, reason in (*found.graph.closed, *refused.items())
        if name not in named
    ]
    result = Structures(structures, skipped)
    result.dead_of_all = _DeathOfAll(found, structures)
    return result


def roots_of_structures(found: Trace) -> tuple[Structures, dict]:
    """The structures of a traced model; name -> roots of its units."""
    structures = structures_of(found)
    return structures, {s.name: s.is_dead.roots for s in structures}


def _group(found):
    """Units that the same layers make: [(their spaces, roots in order)]."""
    elements = found.tracer.elements
    spaces_of: dict[int, list[int]] = {}
    for element, root in enumerate(found.roots):
        spaces = spaces_of.setdefault(int(root), [])
        space = elements.space(element)
        if space not in spaces:
            spaces.append(space)
    groups: dict[tuple, list[int]] = {}
    reasons: dict[int, str] = {}
    for root, spaces in spaces_of.items():
        if root in found.fixed:
            for space in spaces:
                reasons.setdefault(space, found.fixed[root])
            continue
        groups.setdefault(tuple(spaces), []).append(root)
    skipped = [
        (elements.spaces[space].name, reason)
        for space, reason in sorted(reasons.items())
        if elements.spaces[space].is_named
        and elements.spaces[space].kind != "input"
    ]
    grouped = [
        ([elements.spaces[s] for s in spaces], sorted(roots))
        for spaces, roots in sorted(groups.items())
        if any(elements.spaces[s].is_named for s in spaces)
    ]
    return grouped, skipped


def _structure(found, name, spaces, roots):
    position = np.full(len(found.roots), -1, np.int32)
    position[roots] = np.arange(len(roots))
    parts = []
    for variable, role, ids, *_ in found.tracer.slices:
        units = position[found.roots[ids]]
        if (units >= 0).any():
            parts.append(Slice(variable, role, units))
    is_input = int(roots[0]) in found.input_roots
    first = next(s for s in spaces if s.is_named)
    return Structure(
        name,
        len(roots),
        tuple(parts),
        "input" if is_input else first.kind,
        # A tied embedding that is a recurrent layer's units counts as they do.
        ("in",)
        if is_input
        else tuple(
            dict.fromkeys(r for s in spaces if s.is_named for r in s.roles)
        ),
        _Death(found, np.array(roots), is_input),
    )


def _count_what_kills(found, structures):
    """Norms count what reads a unit where what makes it does not kill it.

    Zero queries attend evenly: heads that share keys and values with others die
    only when nothing reads them. Only products of two tensors are like that.
    """
    products = (Contraction, DotProductAttention)
    if not any(isinstance(rule, products) for rule in found.rules):
        return
    alive = [
        s
        for s, dead in zip(
            structures, _die(found, structures, None), strict=True
        )
        if not dead and s.kind != "input" and s.of(["in"])
    ]
    dead = _die(found, alive, ("in",)) if alive else ()
    for structure, is_dead in zip(alive, dead, strict=True):
        if is_dead:
            structure.roles = ("in",)


def _die(found, structures, roles) -> list[bool]:
    """Whether a structure's first unit is dead without its counted weights."""
    read = Weights()
    for structure in structures:
        for part in structure.of(roles):
            value = read(part.variable)
            zeroed = np.where(part.mask(0), 0, value).astype(value.dtype)
            read.change(part.variable, zeroed)
    findings = analyse(found, read, drop_blocks=False, exact=False)
    return [bool(findings.removable[s.is_dead.roots[0]]) for s in structures]


class _Death:
    """`Structure.is_dead`, by the analysis that `shrink` uses."""

    def __init__(self, found, roots, is_input):
        self._found, self.roots, self._is_input = found, roots, is_input

    def __call__(self, threshold):
        read = Weights()
        zero_small(self._found, read, threshold, self.roots)
        findings = analyse(
            self._found, read, with_inputs=self._is_input, drop_blocks=False
        )
        return findings.removable[self.roots]


class _DeathOfAll:
    """`Structures.dead_of_all`: one analysis for all structures."""

    def __init__(self, found, structures):
        self._found = found
        self._structures = list(structures)

    def __call__(self, threshold):
        dead = {}
        for is_input in (False, True):
            own = [
                s for s in self._structures if (s.kind == "input") == is_input
            ]
            if not own:
                continue
            read = Weights()
            roots = np.concatenate([s.is_dead.roots for s in own])
            zero_small(self._found, read, threshold, roots)
            findings = analyse(
                self._found, read, with_inputs=is_input, drop_blocks=False
            )
            for s in own:
                dead[s.name] = findings.removable[s.is_dead.roots]
        return {s.name: dead[s.name] for s in self._structures}


def zero_small(
    found: Trace, read: Weights, threshold: float, roots=None
) -> None:
    """Zeroes, in `read`, what belongs to a unit and is small as a whole.

    For each unit and variable: kernels, scales and shifts with a norm of at
    most `threshold`; a bias only where all kernels of its own layer are zero
    for the unit, as a small bias alone says nothing.

    Args:
        found: `trace(model)`.
        read: `Weights`, changed.
        threshold: >= 0.
        roots: Of units; None: all that are not fixed.
    """
    if threshold <= 0:
        return
    chosen = np.zeros(len(found.roots), bool)
    if roots is None:
        chosen[np.unique(found.roots)] = True
        chosen[list(found.fixed)] = False
    else:
        chosen[roots] = True
    silent: dict[int, np.ndarray] = {}  # layer -> units of which it makes none
    # Kernels before biases: a bias follows its kernels.
    order = sorted(found.tracer.slices, key=_is_bias)
    for part in order:
        variable, role, ids, _, owner = part
        if role == "stat":
            continue
        of_unit = found.roots[ids]
        value = read(variable)
        axes = tuple(a for a, n in enumerate(ids.shape) if n == 1)
        square = np.square(value.astype(np.float64)).sum(
            axis=axes, keepdims=True
        )
        square = np.broadcast_to(square, ids.shape)
        norms = np.sqrt(
            np.bincount(
                of_unit.ravel(),
                weights=square.ravel(),
                minlength=len(found.roots),
            )
        )
        small = chosen & (norms <= threshold)
        if role == "out" and not _is_bias(part):
            # A unit that the layer does not make at all is not silenced here.
            silent[owner] = silent.get(owner, True) & small
        elif role == "out":
            small &= silent.get(owner, False)
        mask = small[of_unit]
        if mask.any():
            read.change(variable, np.where(mask, 0, value).astype(value.dtype))


def _is_bias(part) -> bool:
    variable, role, ids, *_ = part
    return role == "out" and (
        len(variable.shape) == 1 or "bias" in variable.name
    )


def _number_repeated(structures):
    """Parts of one layer's units, such as of a concatenation, get numbers."""
    names = [s.name for s in structures]
    for name in {n for n in names if names.count(n) > 1}:
        same = [s for s in structures if s.name == name]
        for i, structure in enumerate(same):
            structure.name = f"{name}_{i}"
