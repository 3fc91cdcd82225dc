"""A model whose layers run on sparse kernels where that is faster."""

from __future__ import annotations

import dataclasses
import fnmatch

import keras
import numpy as np

import custom_ops
from custom_ops import Plan, SparseKernel
from tf_ssl import checks
from tf_ssl.graph import check
from tf_ssl.graph.inputs import check_model, inputs_for
from tf_ssl.graph.layer_calls import LayerCall, record
from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.walk import build_graph, path_of
from tf_ssl.measure.latency import (
    check_times,
    in_turn,
    layer_alone,
    measure_latency,
)
from tf_ssl.sparse.layers import SparseConv2D, SparseDense
from tf_ssl.sparse.sparse_plans import plan_of_call
from tf_ssl.sparse.sparsify_report import SparsifiedLayer, SparsifyReport
from tf_ssl.structures.rules import has_rule

# A sparse kernel that is modelled to take so many times as long as the dense
# one is not measured.
_HOPELESS = 2.0


def sparsify(
    model: keras.Model,
    *,
    batch_size: int = 1,
    sample=None,
    exclude=(),
    measure: bool = True,
    least_speed_up: float = 1.05,
    seconds: float = 0.5,
    values_dtype: str = "float32",
    length: int | None = None,
    tolerance: float | None = None,
) -> keras.Model:
    """A model whose layers with zeros run on sparse kernels, where faster.

    Each Conv2D and Dense layer with zeros in its kernel is timed here, dense
    and sparse in turn, on noise of the shapes that it sees; it becomes a
    `SparseConv2D` or `SparseDense` if that wins. At last both models are timed
    in turn: if the new one is not faster, all layers stay dense. Other layers
    are copied; in place of a composite layer in which something becomes sparse
    stand the layers inside. The result is compared with the model itself before
    you get it. The argument is not changed.

    What wins depends on the machine and on the batch: sparsify where the model
    will run. The model can be trained on; zeros stay.

    Args:
        model: Built `keras.Model`.
        batch_size: Examples a call.
        sample: As for `tf_ssl.multiply_adds`; the models are compared on it.
        exclude: Names of layers, or patterns as in fnmatch, that stay dense.
        measure: False: choose by `custom_ops.plan`, without running anything.
        least_speed_up: Time of the dense over that of the sparse layer from
            which on it is replaced, >= 1.
        seconds: Time for each layer, and four times that for the models.
        values_dtype: "float32", or "bfloat16": rounded, half the bytes.
        length: Integer: the size of what the model's inputs leave open, for
            composite layers that open only then. The new model takes inputs of
            that size only.
        tolerance: Largest difference of outputs, max|a - b| / max|a|, from the
            model with kernels of the same values; None: what rounding explains
            in the model's compute type.

    Returns:
        A model, Sequential if the argument is, with `.sparsify_report`, a
        `SparsifyReport`: which layers, which not, and why.

    Raises:
        TypeError: No Keras model.
        ValueError: It is not built, or is a subclass with Python code that
            does not open; an argument is none of these; a pattern matches no
            layer; outputs are NaN or infinite: pass `sample`.
        RuntimeError: The new model computes something else.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> print(sparsify(model).sparsify_report)
    dense...: dense: no zeros
    difference from the model 0.0e+00, tolerance 1.0e-05

    Reference: Park et al., "Faster CNNs with Direct Sparse Convolutions and
    Guided Pruning", ICLR 2017.
    """
    check_model(model)
    check_times((batch_size,), seconds)
    if length is not None:
        checks.integer("length", length, 1)
    checks.choice("values_dtype", values_dtype, ("float32", "bfloat16"))
    if not checks.is_number(least_speed_up) or least_speed_up < 1:
        raise ValueError(
            "Invalid value for argument least_speed_up. Expected a number >= "
            f"1. Received: least_speed_up={least_speed_up!r}"
        )
    graph = build_graph(model, has_rule, length)
    inputs = inputs_for(model, batch_size, sample, unknown=length)
    layers, closed = _calls_of_layers(model, graph, inputs)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    _check_patterns(exclude, layers)
    rows, successors, kernels = [], {}, []
    flat_names = {id(c.op): path_of(c.op, c.parent, "_") for c in graph.calls()}
    for name, calls in layers.items():
        layer = calls[0].layer
        excluded = any(_matches(name, p) for p in exclude)
        reason = "excluded" if excluded else _reason_to_stay(layer)
        if reason is not None:
            rows.append(SparsifiedLayer(name, False, reason))
            continue
        sparse = _sparse(layer, values_dtype, flat_names[id(layer)])
        row = _choose(name, calls, sparse, measure, least_speed_up, seconds)
        rows.append(row)
        if row.is_sparse:
            successors[layer] = [sparse]
            kernels.append((layer.kernel, _as_stored(layer, values_dtype)))
    rows += [
        SparsifiedLayer(name, False, f"does not open: {reason}")
        for name, reason in closed
    ]
    new = replace_layers(model, successors, graph)
    times = None
    if successors and measure:
        times = _time_models(model, new, batch_size, inputs, 4 * seconds)
        if times[1] >= times[0]:
            new, kernels = replace_layers(model, {}, graph), []
            reason = "the whole model was not faster"
            rows = [
                dataclasses.replace(row, is_sparse=False, reason=reason)
                if row.is_sparse
                else row
                for row in rows
            ]
    tolerance = tolerance or check.tolerance_of(model)
    difference = check.check(
        model, kernels, new, inputs, tolerance, "sparsified"
    )
    new.sparsify_report = SparsifyReport(
        rows, batch_size, times, difference, tolerance
    )
    return new


def _calls_of_layers(model, graph, inputs):
    """Calls of layers with kernels by name; (name, reason) of what is closed.

    Those inside composite layers that open are among them.
    """
    seen = {id(call.op) for call in graph.calls()}
    found: dict[str, list[LayerCall]] = {}
    for call in record(model, inputs):
        if id(call.layer) in seen and hasattr(call.layer, "kernel"):
            found.setdefault(call.name, []).append(call)
    of_name = {call.op.name: call.op for call in graph.calls()}
    closed = [
        (name, reason)
        for name, reason in graph.closed
        if name in of_name
        and any(
            type(layer) in (keras.layers.Conv2D, keras.layers.Dense)
            for layer in of_name[name]._flatten_layers()
        )
    ]
    return found, closed


def _as_stored(layer, values_dtype):
    """The kernel with the values that a sparse layer has."""
    return keras.ops.cast(keras.ops.cast(layer.kernel, values_dtype), "float32")


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for a layer, with or without what it is in."""
    own = name.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(n, pattern) for n in (name, own))


def _check_patterns(patterns, names):
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            raise ValueError(
                "Invalid value for argument exclude. Expected patterns that "
                f"match layers: {', '.join(names)}. Received: {pattern!r}, "
                "which matches none"
            )


def _reason_to_stay(layer) -> str | None:
    """Why a layer stays dense whatever its zeros; None if it may not."""
    if type(layer) not in (keras.layers.Conv2D, keras.layers.Dense):
        return f"a {type(layer).__name__}"
    if layer.dtype_policy.quantization_mode is not None:
        return "quantized"
    if getattr(layer, "lora_enabled", False):
        return "it has a LoRA"
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    if np.count_nonzero(kernel) == kernel.size:
        return "no zeros"
    state = custom_ops.status()
    if state["implementation"] != "c++":
        return f"no sparse kernels (C++ ops: {state['reason']})"
    return None


def _sparse(layer, values_dtype, name):
    if isinstance(layer, keras.layers.Dense):
        return SparseDense.from_dense(layer, values_dtype, name)
    return SparseConv2D.from_conv(layer, values_dtype, name)


def _choose(name, calls, sparse, measure, least_speed_up, seconds):
    """What becomes of a layer."""
    kernel = SparseKernel(
        keras.ops.convert_to_numpy(sparse.positions),
        keras.ops.cast(sparse.values, "float32"),
        (1, 1, *sparse.kernel_shape)[-4:],
    )
    plan: Plan = plan_of_call(calls[0].layer, calls[0], kernel)
    ms = plan.dense_ms, plan.sparse_ms
    by = "modelled"
    if measure and ms[1] < _HOPELESS * ms[0]:
        by = "measured"
        noise: dict = {}
        others = [dataclasses.replace(c, layer=sparse) for c in calls]
        times = in_turn(
            {
                "dense": layer_alone(calls, noise),
                "sparse": layer_alone(others, noise),
            },
            seconds,
        )
        ms = times["dense"].median_ms, times["sparse"].median_ms
    is_sparse = ms[1] * least_speed_up <= ms[0]
    return SparsifiedLayer(
        name=name,
        is_sparse=is_sparse,
        reason=f"{by} {'faster' if is_sparse else 'not faster'}",
        milliseconds=ms,
        plan=plan,
    )


def _time_models(before, after, batch_size, sample, seconds):
    times = measure_latency(
        {"before": before, "after": after},
        batch_sizes=(batch_size,),
        sample=sample,
        seconds=seconds,
    )
    return tuple(times[key][batch_size].median_ms for key in times)
