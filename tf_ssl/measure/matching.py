"""Which layers of two models belong together."""

from __future__ import annotations

import keras

from tf_ssl.graph.sources import Constant
from tf_ssl.measure.model_layers import ModelLayer


def match(
    before: dict[str, ModelLayer], after: dict[str, ModelLayer]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Pairs the layers of two models.

    By name. A Bidirectional is paired with the two recurrent layers that stand
    in for it: those that are there after only, and whose names begin with its
    own or are those of its two layers; with the flip behind the backward one,
    and with the layer of its own name that joins them. A composite layer that
    was opened is paired with the layers that were inside, which have its name
    before theirs, and with the operations of keras.ops among them; what was in
    a subclassed model, with the layer of the same name outside of it.

    Returns:
        (names before, names after), either may be empty, in the order of
        `before`; what is there after only follows what comes before it.
    """
    only_after = [name for name in after if name not in before]
    inside = _inside(before, after)
    pairs = []
    for name, layer in before.items():
        partners = (name,) if name in after else ()
        if not partners:
            partners = tuple(inside.get(name, _moved(name, only_after)))
        if isinstance(layer.layer, keras.layers.Bidirectional):
            partners = (
                *_halves(name, layer.layer, after, only_after),
                *partners,
            )
        only_after = [other for other in only_after if other not in partners]
        pairs.append(((name,), partners))
    order = list(after)
    for name in only_after:
        previous = order[: order.index(name)]
        position = max(
            (
                i + 1
                for i, (_, partners) in enumerate(pairs)
                if any(partner in previous for partner in partners)
            ),
            default=0,
        )
        pairs.insert(position, ((), (name,)))
    return pairs


def _inside(before, after) -> dict[str, list[str]]:
    """Composite layers that are there before only: what they consist of."""
    composites = [
        name
        for name, part in before.items()
        if name not in after
        and isinstance(part.layer, keras.Layer)
        and not isinstance(part.layer, keras.layers.Bidirectional)
    ]
    found: dict[str, list[str]] = {}
    current, waiting = None, []
    for name, part in after.items():
        if name in before:
            current, waiting = None, []
            continue
        is_named = isinstance(part.layer, keras.Layer) and not isinstance(
            part.layer, Constant
        )
        if is_named:
            owners = [c for c in composites if name.startswith(f"{c}_")]
            # block_1_dense is of block_1, not of block.
            current = max(owners, key=len, default=None)
        if current is not None:
            found.setdefault(current, []).extend([*waiting, name])
            waiting = []
        else:
            # Operations before the first layer inside are of the same one.
            waiting = [] if is_named else [*waiting, name]
    return found


def _moved(name, only_after) -> tuple[str, ...]:
    """The layer under the name that it had in a model that was opened."""
    while "/" in name:
        name = name.partition("/")[2]
        if name in only_after:
            return (name,)
    return ()


def _halves(name, bidirectional, after, only_after) -> list[str]:
    """What does the work of a Bidirectional, the forward layer first."""
    prefix = name[: len(name) - len(bidirectional.name)]
    own = {
        prefix + half.name
        for half in (bidirectional.forward_layer, bidirectional.backward_layer)
    }
    halves = [
        other
        for other in only_after
        if isinstance(after[other].layer, keras.layers.RNN)
        and (other.startswith(name) or other in own)
    ]
    halves.sort(key=lambda other: after[other].layer.go_backwards)
    flips = [
        other
        for other in only_after
        if type(after[other].layer).__name__ == "Flip"
        and after[other].reads
        and after[other].reads <= set(halves)
    ]
    return halves + flips


def folded_on_one_side(
    before: dict[str, ModelLayer], after: dict[str, ModelLayer]
) -> list[str]:
    """Notes on BatchNormalizations that only one model has.

    Where the layer that one reads is in both models, its scale and shift were
    folded into that layer, or are lost: times then compare two things at once.
    """
    notes = []
    for side, own, others in (
        ("before", before, after),
        ("after", after, before),
    ):
        read_there = {
            read
            for name, layer in others.items()
            if name not in own and _is_norm(layer)
            for read in layer.reads
        }
        for name, layer in own.items():
            if name in others or not _is_norm(layer):
                continue
            kept = sorted(layer.reads & set(others) - read_there)
            if kept:
                notes.append(
                    f"{name} (BatchNormalization) is in `{side}` only, "
                    f"{kept[0]}, which it reads, in both: folded on one side. "
                    "Fold it on both sides or on neither to compare times."
                )
    return notes


def _is_norm(layer) -> bool:
    return isinstance(layer.layer, keras.layers.BatchNormalization)
