"""Two models side by side: what became smaller, and what faster."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import keras

from tf_ssl.graph.difference import relative_difference
from tf_ssl.graph.inputs import check_model, input_structure, inputs_for
from tf_ssl.graph.walk import functional
from tf_ssl.measure.comparison import Comparison, LayerFacts, Pair, Row, Totals
from tf_ssl.measure.latency import (
    Latency,
    check_times,
    in_turn,
    inference,
    layer_alone,
    measure_latency,
    nothing,
)
from tf_ssl.measure.machine import machine
from tf_ssl.measure.matching import folded_on_one_side, match
from tf_ssl.measure.model_layers import model_layers, num_bytes, num_parameters


def compare(
    before: keras.Model,
    after: keras.Model,
    *,
    sample=None,
    batch_sizes: Sequence[int] = (1, 32),
    seconds: float = 2.0,
) -> Comparison:
    """Compares a model with the one that was made from it.

    Layers are matched by name, a Bidirectional also with two recurrent layers
    that stand in for it, a composite layer with those that were inside (see
    `matching.match`): they stand in one row and are timed as one. All else
    that only one model has is listed on its side.

    Times are wall clock: the layers of both models in turn in one run, each
    alone on noise; then the whole models in turn in another.

    Args:
        before: Built `keras.Model`.
        after: Built `keras.Model` that takes the same inputs and gives outputs
            of the same shapes.
        sample: Array, or arrays in the structure that the models take, with a
            batch axis; its examples are repeated or cut to the batch size.
            None: noise; needed where `tf_ssl.multiply_adds` needs it.
        batch_sizes: Examples a call. Differences are those at the largest.
        seconds: Time for the whole models, and again for the layers, at each
            batch size; at least 5 rounds are run.

    Returns:
        `Comparison`: print it, or read its `rows`, `totals`, `notes` and
        `to_json()`.

    Raises:
        TypeError: An argument is no Keras model.
        ValueError: A model is not built or needs a sample, the two do not take
            the same inputs or do not give the same outputs, or batch sizes or
            time are none.

    >>> def net(filters):
    ...     images = keras.Input((12, 12, 1), name="images")
    ...     x = keras.layers.Conv2D(filters, 3, name="conv1")(images)
    ...     x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    ...     return keras.Model(images, keras.layers.Dense(2, name="logits")(x))
    >>> found = compare(net(20), net(5), batch_sizes=(1,), seconds=0.0)
    >>> found.totals.multiply_adds.before, found.totals.multiply_adds.after
    (18040, 4510)
    >>> [row.name for row in found.rows]
    ['conv1', 'pool', 'logits']

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016, tables 1 to 4, whose speedups are per layer.
    """
    check_times(batch_sizes, seconds)
    for model in (before, after):
        check_model(model)
    _check_same_inputs(before, after)
    batch_sizes = tuple(dict.fromkeys(batch_sizes))
    # The one made from it may state a length that the other leaves open.
    drawn_for = after if _is_open(before) else before
    inputs = {n: inputs_for(drawn_for, n, sample) for n in batch_sizes}
    differences = _differences(before, after, inputs[max(batch_sizes)])
    models = {"before": before, "after": after}
    alone: dict[int, dict] = {}
    notes: list[str] = []
    for n in batch_sizes:
        layers = {
            side: model_layers(model, inputs[n], n)
            for side, model in models.items()
        }
        matched = match(layers["before"], layers["after"])
        alone[n] = _time_layers(layers, matched, seconds, notes)
    latency = measure_latency(
        models,
        batch_sizes=batch_sizes,
        sample=inputs[max(batch_sizes)],
        seconds=seconds,
    )
    whole = {
        n: Pair(latency["before"][n], latency["after"][n]) for n in batch_sizes
    }
    rows = [
        Row(
            (*names, *others)[0],
            _facts(layers["before"], names, "before", alone),
            _facts(layers["after"], others, "after", alone),
        )
        for names, others in matched
    ]
    for side in models:
        unknown = [u for x in layers[side].values() for u in x.unknown]
        notes += [f"not counted in `{side}`: {text}" for text in unknown]

    def pair(function) -> Pair:
        return Pair(*(function(side) for side in models))

    totals = Totals(
        num_layers=pair(lambda side: len(layers[side])),
        parameters=pair(lambda side: num_parameters(_variables(layers[side]))),
        weight_bytes=pair(lambda side: num_bytes(_variables(layers[side]))),
        multiply_adds=pair(
            lambda side: sum(
                x.multiply_adds or 0 for x in layers[side].values()
            )
        ),
        latency=whole,
        sum_of_layers_ms={
            n: pair(
                lambda side, n=n: sum(
                    x.median_ms for key, x in alone[n].items() if key[0] == side
                )
            )
            for n in batch_sizes
        },
        call_ms={n: alone[n]["call", ()].median_ms for n in batch_sizes},
        speed_up_total_time={n: whole[n].ratio for n in batch_sizes},
        speed_up_mean_of_layers={
            n: _mean_of_layers(rows, n) for n in batch_sizes
        },
        num_layers_in_mean=sum(row.has_multiply_adds for row in rows),
        largest_difference=differences,
    )
    notes += folded_on_one_side(layers["before"], layers["after"])
    return Comparison(rows, totals, list(dict.fromkeys(notes)), machine())


def _check_same_inputs(before, after):
    taken = []
    for model in (before, after):
        structure = input_structure(model)
        if structure is None:
            return  # A subclass that does not open: the first call tells.
        tensors = [x for x in keras.tree.flatten(structure) if x is not None]
        taken.append([(tuple(x.shape), str(x.dtype)) for x in tensors])
    if len(taken[0]) != len(taken[1]) or not all(
        a[1] == b[1] and _fits(a[0], b[0]) for a, b in zip(*taken, strict=True)
    ):
        raise ValueError(
            "Invalid value for argument after. Expected a model that takes the "
            f"inputs of before, {taken[0]}. Received: a model that takes "
            f"{taken[1]}"
        )


def _fits(shape, other) -> bool:
    """Whether sizes are the same, or one model leaves them open."""
    return len(shape) == len(other) and all(
        n == m or None in (n, m) for n, m in zip(shape, other, strict=True)
    )


def _is_open(model) -> bool:
    tensors = keras.tree.flatten(input_structure(model))
    return any(x is not None and None in x.shape[1:] for x in tensors)


def _differences(before, after, inputs) -> dict[str, float]:
    outputs = [inference(model, inputs)() for model in (before, after)]
    shapes = [[tuple(x.shape) for x in side] for side in outputs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Invalid value for argument after. Expected a model whose outputs "
            f"have the shapes of those of before, {shapes[0]}. Received: a "
            f"model whose outputs have the shapes {shapes[1]}"
        )
    function = functional(before)
    names = (
        [f"output {i}" for i in range(len(shapes[0]))]
        if function is None
        else function.output_names
    )
    # Two outputs of one layer have one name.
    names = [
        name if names.count(name) == 1 else f"{name} {i}"
        for i, name in enumerate(names)
    ]
    return {
        name: relative_difference(a.numpy(), b.numpy())
        for name, a, b in zip(names, *outputs, strict=True)
    }


def _time_layers(layers, matched, seconds, notes) -> dict[tuple, Latency]:
    """(side, names) -> time of a row's layers; ("call", ()): of nothing.

    Layers of one row are called in one function: more calls would only add
    more of the time of a call.
    """
    functions = {("call", ()): nothing()}
    noise: dict = {}
    for pair in matched:
        for (side, named), names in zip(layers.items(), pair, strict=True):
            calls = [call for name in names for call in named[name].calls]
            if not calls:
                continue
            try:
                functions[side, names] = layer_alone(calls, noise)
            except Exception as error:  # a user's layer: anything may happen
                notes.append(
                    f"not timed alone in `{side}`: {', '.join(names)}: "
                    f"{type(error).__name__}"
                )
    return in_turn(functions, seconds)


def _facts(layers, names, side, alone) -> LayerFacts | None:
    """Facts of layers that stand in one row; None without any."""
    parts = [layers[name] for name in names]
    if not parts:
        return None
    counted = [p.multiply_adds for p in parts if p.multiply_adds is not None]
    latency = {
        n: times[side, names]
        for n, times in alone.items()
        if (side, names) in times
    }
    variables = _variables({p.name: p for p in parts})
    inner = {read for p in parts for read in p.reads}
    return LayerFacts(
        names=tuple(names),
        kinds=tuple(type(p.layer).__name__ for p in parts),
        outputs=tuple(
            shape for p in parts if p.name not in inner for shape in p.outputs
        ),
        kernels=tuple(shape for p in parts for shape in p.kernels),
        parameters=num_parameters(variables),
        weight_bytes=num_bytes(variables),
        multiply_adds=sum(counted) if counted else None,
        latency=latency,
    )


def _variables(layers) -> list:
    return [v for layer in layers.values() for v in layer.variables]


def _mean_of_layers(rows, batch_size) -> float:
    ratios = [row.speed_up(batch_size) for row in rows if row.has_multiply_adds]
    ratios = [ratio for ratio in ratios if ratio is not None]
    return statistics.fmean(ratios) if ratios else float("nan")
