"""Low-rank layers: a convolution becomes few filters and a 1x1 convolution."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.walk import build_graph
from tf_ssl.low_rank.decompose_report import DecomposeReport, LayerRank
from tf_ssl.low_rank.factors import METHODS, factors, is_decomposable
from tf_ssl.measure.latency import measure_latency
from tf_ssl.measure.multiply_adds import multiply_adds


def decompose(
    model: keras.Model,
    *,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
    budget: float | None = None,
    method: str = "svd",
    exclude=(),
    measure_batch: int | None = None,
    seconds: float = 1.0,
) -> keras.Model:
    """A model whose convolution and dense layers are products of smaller ones.

    A convolution of N filters becomes one of M filters without bias, and a 1x1
    convolution of N with the bias and the activation, which keeps the name; a
    dense layer becomes two. What they compute at full rank is the same but for
    rounding. Then fine-tune. The argument is not changed.

    Args:
        model: Built Functional or Sequential model.
        energy: Share of the squared singular values that each layer keeps, in
            (0, 1]. Layers whose two factors would need as many multiply-adds
            stay whole.
        ranks: Layer's name, or pattern as in fnmatch, to its number of basis
            filters M; others stay whole. Taken as it is, also where nothing
            is saved.
        budget: Share of the multiply-adds of these layers that may stay, in
            (0, 1]: the highest energy, one for all layers, that keeps it.
        method: What the first of the two layers is. "svd" and "pca": M filters
            of the same height and width; both factors share the singular
            values evenly ("svd"), or the filters are orthonormal ("pca", the
            authors' tool, without centering). "channel": a 1x1 convolution to
            M channels, before a convolution of the old height and width.
        exclude: Names or patterns of layers that stay whole.
        measure_batch: Batch size at which both forms of each layer are timed
            here: those that are not faster stay whole.
        seconds: Time for each layer's measurement.

    Returns:
        A model, Sequential if the argument is, with `.decompose_report`, a
        `DecomposeReport`.

    Raises:
        ValueError: Not exactly one of energy, ranks, budget; one of them out
            of range; a rank above the layer's; a pattern that matches nothing;
            weights that are not finite; the model is not built.

    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...                           keras.layers.Conv2D(16, 3, name="conv")])
    >>> small = decompose(model, ranks={"conv": 4})
    >>> [(layer.name, layer.filters) for layer in small.layers]
    [('conv_basis', 4), ('conv', 16)]

    Reference: Wen et al., "Coordinating Filters for Faster Deep Neural
    Networks", ICCV 2017, section 3.3.
    """
    _check(energy, ranks, budget, method, measure_batch)
    found, skipped = layers_to_decompose(model, exclude)
    every = {layer: factors(layer, method) for layer in found}
    for layer, each in every.items():
        if not np.isfinite(each.singular_values).all():
            raise ValueError(
                "Invalid value for argument model. Expected finite weights. "
                f"Received: {layer.name} has NaN or infinite ones"
            )
    if ranks is not None:
        wanted = _given_ranks(ranks, every, skipped)
    else:
        if budget is not None:
            energy = _energy_of_budget(budget, model, every)
        wanted = {layer: f.rank_of(energy) for layer, f in every.items()}
    rows, successors = [], {}
    shapes = _input_shapes(model)
    for layer, each in every.items():
        rank = wanted.get(layer)
        reason, ms = None, None
        if rank is None:
            reason = "no rank was given for it"
        elif ranks is None and each.multiply_adds(rank) >= each.dense:
            reason = "its two factors would need no fewer multiply-adds"
        else:
            pair = each.layers(rank)
            if measure_batch:
                ms = _times(layer, pair, shapes, measure_batch, seconds)
                if ms[1] >= ms[0]:
                    reason = "its two factors are not faster"
            if reason is None:
                successors[layer] = pair
        if reason is not None:
            rank = each.full_rank
        rows.append(
            LayerRank(
                layer.name,
                rank,
                each.full_rank,
                each.energy(rank),
                (
                    each.dense,
                    each.dense if reason else each.multiply_adds(rank),
                ),
                reason,
                ms,
            )
        )
    new = replace_layers(model, successors)
    new.decompose_report = DecomposeReport(
        rows, skipped, (model.count_params(), new.count_params())
    )
    return new


def kernel_ranks(
    model: keras.Model, energy: float = 0.95
) -> dict[str, tuple[int, int]]:
    """How many basis filters hold a share of the energy of each layer.

    Args:
        model: Built Functional or Sequential model.
        energy: Share of the squared singular values, in (0, 1].

    Returns:
        Layer's name -> (rank, full rank).

    Raises:
        ValueError: An energy outside (0, 1]; the model is not built.
    """
    checks.share("energy", energy)
    found, _ = layers_to_decompose(model, ())
    result = {}
    for layer in found:
        each = factors(layer, "svd")
        result[layer.name] = (each.rank_of(energy), each.full_rank)
    return result


def _check(energy, ranks, budget, method, measure_batch):
    given = {"energy": energy, "ranks": ranks, "budget": budget}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            "Expected exactly one of the arguments energy, ranks and budget. "
            f"Received: {', '.join(named) or 'none'}"
        )
    if energy is not None:
        checks.share("energy", energy)
    if budget is not None:
        checks.share("budget", budget)
    checks.choice("method", method, METHODS)
    if measure_batch is not None:
        checks.integer("measure_batch", measure_batch, 1)


def layers_to_decompose(model, exclude):
    """Layers that can be decomposed, each once; (name, why not) of others.

    Args:
        model: Built Functional or Sequential model.
        exclude: Names of layers, or patterns as in fnmatch, that are not.
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    found, skipped = [], []
    for call in build_graph(model).calls():
        layer = call.op
        if layer in found or not hasattr(layer, "kernel"):
            continue
        reason = is_decomposable(layer)
        if any(fnmatch.fnmatchcase(layer.name, p) for p in exclude):
            reason = "excluded"
        if reason is None:
            found.append(layer)
        elif (layer.name, reason) not in skipped:
            skipped.append((layer.name, reason))
    _check_patterns(
        "exclude", exclude, [x.name for x in found] + [n for n, _ in skipped]
    )
    return found, skipped


def _check_patterns(argument, patterns, names):
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"Invalid value for argument {argument}. Expected patterns "
                f"that match layers: {', '.join(names)}. Received: "
                f"{pattern!r}, which matches none"
            )


def _given_ranks(ranks, every, skipped):
    for pattern in ranks:
        for name, reason in skipped:
            if pattern == name:
                raise ValueError(
                    "Invalid value for argument ranks. Expected layers that "
                    f"can be decomposed. Received: {pattern!r}, {reason}"
                )
    _check_patterns("ranks", ranks, [layer.name for layer in every])
    wanted = {}
    for layer, each in every.items():
        for pattern, rank in ranks.items():
            if not fnmatch.fnmatchcase(layer.name, pattern):
                continue
            if not checks.is_integer(rank) or not 1 <= rank <= each.full_rank:
                raise ValueError(
                    "Invalid value for argument ranks. Expected an integer in "
                    f"[1, {each.full_rank}] for the layer {layer.name}. "
                    f"Received: {pattern!r}: {rank!r}"
                )
            wanted[layer] = int(rank)
            break
    return wanted


def _energy_of_budget(budget: float, model, every) -> float:
    """The highest energy whose multiply-adds fit."""
    counts = multiply_adds(model)
    # Multiply-adds of a layer: those of a position times this.
    positions = {
        layer: sum(
            number
            for name, number in counts.items()
            if name.rsplit("/", 1)[-1] == layer.name
        )
        / each.dense
        for layer, each in every.items()
    }
    total = sum(positions[x] * f.dense for x, f in every.items())

    def share(energy):
        return (
            sum(
                positions[x] * min(f.dense, f.multiply_adds(f.rank_of(energy)))
                for x, f in every.items()
            )
            / total
        )

    if not every or share(1.0) <= budget:
        return 1.0
    least = share(np.finfo(float).tiny)
    if least > budget:
        raise ValueError(
            "Invalid value for argument budget. Expected at least what rank 1 "
            f"of every layer needs, {least:.3f}. Received: budget={budget!r}"
        )
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if share(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def _input_shapes(model):
    graph = build_graph(model)
    shapes = {}
    for call in graph.calls():
        shapes.setdefault(id(call.op), call.input_shapes[0])
    return shapes


def _times(layer, pair, shapes, batch, seconds):
    """Median milliseconds of a layer and of its factors, in turn."""
    shape = shapes[id(layer)]
    if any(size is None for size in shape[1:]):
        raise ValueError(
            "Invalid value for argument measure_batch. Expected None where "
            f"input sizes are not known: {layer.name} gets {shape}"
        )

    def alone(*layers):
        inputs = outputs = keras.Input(shape[1:], dtype=layers[0].compute_dtype)
        for each in layers:
            outputs = each(outputs)
        return keras.Model(inputs, outputs)

    times = measure_latency(
        {"before": alone(layer), "after": alone(*pair)},
        batch_sizes=(batch,),
        seconds=seconds,
    )
    return tuple(times[key][batch].median_ms for key in ("before", "after"))
