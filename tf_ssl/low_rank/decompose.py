"""Low-rank layers: a convolution becomes few filters and a 1x1 convolution."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.graph import check
from tf_ssl.graph.inputs import check_model, inputs_for, static_batch, typed
from tf_ssl.graph.layer_calls import record
from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.sample import random_inputs
from tf_ssl.graph.walk import build_graph, path_of
from tf_ssl.low_rank.decompose_report import DecomposeReport, LayerRank
from tf_ssl.low_rank.factors import METHODS, factors, is_decomposable
from tf_ssl.measure.latency import measure_latency
from tf_ssl.structures.rules import has_rule


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
    sample=None,
    length: int | None = None,
    tolerance: float | None = None,
) -> keras.Model:
    """A model whose convolution and dense layers are products of smaller ones.

    A convolution of N filters becomes one of M filters without bias, and a 1x1
    convolution of N with the bias and the activation, which keeps the name; a
    dense layer becomes two. What they compute at full rank is the same but for
    rounding. Then fine-tune. The argument is not changed.

    In place of a composite layer (of another library, or your own) in which
    something is decomposed stand the layers inside; others stay as they are.
    The result is compared with the model itself, in which each of these kernels
    is the product of its two factors meanwhile, before you get it.

    Args:
        model: Built `keras.Model`.
        energy: Share of the squared singular values that each layer keeps, in
            (0, 1]. Layers whose two factors would need as many multiply-adds
            stay whole.
        ranks: Layer's name, or pattern as in fnmatch, to its number of basis
            filters M; others stay whole. Taken as it is, also where nothing
            is saved. A layer inside a composite layer is `"block/dense"`.
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
        sample: Inputs to compare the models on, with a batch axis; None: random
            ones.
        length: Integer: the size of what the model's inputs leave open, for
            composite layers that open only then. The new model takes inputs of
            that size only.
        tolerance: Largest difference of outputs, max|a - b| / max|a|; None:
            what rounding explains in the model's compute type.

    Returns:
        A model, Sequential if the argument is, with `.decompose_report`, a
        `DecomposeReport`.

    Raises:
        ValueError: Not exactly one of energy, ranks, budget; one of them out
            of range; a rank above the layer's; a pattern that matches nothing;
            weights that are not finite, or outputs on random input: pass
            `sample`; the model is not built, or is a subclass with Python code
            that does not open.
        RuntimeError: The new model computes something else.

    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...                           keras.layers.Conv2D(16, 3, name="conv")])
    >>> small = decompose(model, ranks={"conv": 4})
    >>> [(layer.name, layer.filters) for layer in small.layers]
    [('conv_basis', 4), ('conv', 16)]

    Reference: Wen et al., "Coordinating Filters for Faster Deep Neural
    Networks", ICCV 2017, section 3.3.
    """
    _check(energy, ranks, budget, method, measure_batch, length)
    check_model(model)
    graph = build_graph(model, has_rule, length)
    found, skipped = layers_to_decompose(model, exclude, graph)
    names = names_of(graph)
    every = {layer: factors(layer, method) for layer in found}
    for layer, each in every.items():
        if not np.isfinite(each.singular_values).all():
            raise ValueError(
                "Invalid value for argument model. Expected finite weights. "
                f"Received: {names[id(layer)]} has NaN or infinite ones"
            )
    if ranks is not None:
        wanted = _given_ranks(ranks, every, names, skipped)
    else:
        if budget is not None:
            inputs = inputs_for(
                model, static_batch(model) or 1, sample, unknown=length
            )
            energy = _energy_of_budget(budget, model, inputs, every)
        wanted = {layer: f.rank_of(energy) for layer, f in every.items()}
    rows, successors, products = [], {}, []
    shapes = _input_shapes(graph)
    for layer, each in every.items():
        rank = wanted.get(layer)
        reason, ms = None, None
        if rank is None:
            reason = "no rank was given for it"
        elif ranks is None and each.multiply_adds(rank) >= each.dense:
            reason = "its two factors would need no fewer multiply-adds"
        else:
            pair = each.layers(rank, names[id(layer)].replace("/", "_"))
            if measure_batch:
                ms = _times(
                    layer, pair, shapes[id(layer)], measure_batch, seconds
                )
                if ms[1] >= ms[0]:
                    reason = "its two factors are not faster"
            if reason is None:
                successors[layer] = pair
                products.append((layer.kernel, each.product(rank)))
        if reason is not None:
            rank = each.full_rank
        rows.append(
            LayerRank(
                names[id(layer)],
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
    new = replace_layers(model, successors, graph)
    if sample is None:
        inputs = random_inputs(model, length=length)
    else:
        inputs = typed(model, sample)
    tolerance = tolerance or check.tolerance_of(model)
    difference = check.check(
        model, products, new, inputs, tolerance, "decomposed"
    )
    new.decompose_report = DecomposeReport(
        rows,
        skipped,
        (model.count_params(), new.count_params()),
        difference,
        tolerance,
    )
    return new


def kernel_ranks(
    model: keras.Model, energy: float = 0.95, *, length: int | None = None
) -> dict[str, tuple[int, int]]:
    """How many basis filters hold a share of the energy of each layer.

    Args:
        model: Built `keras.Model`.
        energy: Share of the squared singular values, in (0, 1].
        length: As for `decompose`.

    Returns:
        Layer's name -> (rank, full rank).

    Raises:
        ValueError: An energy outside (0, 1]; the model is not built.
    """
    checks.share("energy", energy)
    graph = build_graph(model, has_rule, length)
    found, _ = layers_to_decompose(model, (), graph)
    names = names_of(graph)
    result = {}
    for layer in found:
        each = factors(layer, "svd")
        result[names[id(layer)]] = (each.rank_of(energy), each.full_rank)
    return result


def _check(energy, ranks, budget, method, measure_batch, length):
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
    if length is not None:
        checks.integer("length", length, 1)


def layers_to_decompose(model, exclude, graph=None):
    """Layers that can be decomposed, each once; (name, why not) of others.

    Args:
        model: Built `keras.Model`.
        exclude: Names of layers, or patterns as in fnmatch, that are not.
        graph: Its graph, opened; None: it is made.
    """
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    graph = graph or build_graph(model, has_rule)
    names = names_of(graph)
    found, skipped = [], []
    for call in graph.calls():
        layer, name = call.op, names.get(id(call.op))
        if layer in found or not hasattr(layer, "kernel"):
            continue
        reason = is_decomposable(layer)
        if any(_matches(name, p) for p in exclude):
            reason = "excluded"
        if reason is None:
            found.append(layer)
        elif (name, reason) not in skipped:
            skipped.append((name, reason))
    of_name = {call.op.name: call.op for call in graph.calls()}
    for name, reason in graph.closed:
        inside = of_name[name]._flatten_layers() if name in of_name else ()
        if any(is_decomposable(layer) is None for layer in inside):
            skipped.append((name, f"does not open: {reason}"))
    _check_patterns(
        "exclude",
        exclude,
        [names[id(x)] for x in found] + [n for n, _ in skipped],
    )
    return found, skipped


def names_of(graph) -> dict[int, str]:
    """The id of a layer -> its name, behind those of composites around it."""
    names: dict[int, str] = {}
    for call in graph.calls():
        names.setdefault(id(call.op), path_of(call.op, call.parent, "/"))
    return names


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for a layer, with or without what it is in."""
    own = name.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(n, pattern) for n in (name, own))


def _check_patterns(argument, patterns, names):
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            raise ValueError(
                f"Invalid value for argument {argument}. Expected patterns "
                f"that match layers: {', '.join(names)}. Received: "
                f"{pattern!r}, which matches none"
            )


def _given_ranks(ranks, every, names, skipped):
    for pattern in ranks:
        for name, reason in skipped:
            if pattern == name:
                raise ValueError(
                    "Invalid value for argument ranks. Expected layers that "
                    f"can be decomposed. Received: {pattern!r}, {reason}"
                )
    _check_patterns("ranks", ranks, [names[id(layer)] for layer in every])
    wanted = {}
    for layer, each in every.items():
        for pattern, rank in ranks.items():
            name = names[id(layer)]
            if not _matches(name, pattern):
                continue
            if not checks.is_integer(rank) or not 1 <= rank <= each.full_rank:
                raise ValueError(
                    "Invalid value for argument ranks. Expected an integer in "
                    f"[1, {each.full_rank}] for the layer {name}. "
                    f"Received: {pattern!r}: {rank!r}"
                )
            wanted[layer] = int(rank)
            break
    return wanted


def _energy_of_budget(budget: float, model, inputs, every) -> float:
    """The highest energy whose multiply-adds fit."""
    # Multiply-adds of a layer: those of a position times this.
    positions = dict.fromkeys(every, 0)
    for call in record(model, inputs):
        if call.layer in every:
            size = math.prod(call.output_shapes[0])
            positions[call.layer] += size // call.layer.kernel.shape[-1]
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


def _input_shapes(graph):
    shapes = {}
    for call in graph.calls():
        if call.inputs:
            shapes.setdefault(id(call.op), call.input_shapes[0])
    return shapes


def _times(layer, pair, shape, batch, seconds):
    """Median milliseconds of a layer and of its factors, in turn."""
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
