"""A model whose layers run on sparse kernels where that is faster."""

from __future__ import annotations

import dataclasses
import fnmatch

import keras
import numpy as np

import custom_ops
from custom_ops import Plan, SparseKernel
from tf_ssl import checks
from tf_ssl.graph.inputs import inputs_for
from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.graph.walk import functional
from tf_ssl.measure.latency import (
    check_times,
    in_turn,
    layer_alone,
    measure_latency,
)
from tf_ssl.measure.model_layers import model_layers
from tf_ssl.sparse.layers import SparseConv2D, SparseDense
from tf_ssl.sparse.sparse_plans import plan_of_call
from tf_ssl.sparse.sparsify_report import SparsifiedLayer, SparsifyReport

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
) -> keras.Model:
    """A model whose layers with zeros run on sparse kernels, where faster.

    Each Conv2D and Dense layer with zeros in its kernel is timed here, dense
    and sparse in turn, on noise of the shapes that it sees; it becomes a
    `SparseConv2D` or `SparseDense` if that wins. At last both models are timed
    in turn: if the new one is not faster, all layers stay dense. Other layers
    are copied; the argument is not changed.

    What wins depends on the machine and on the batch: sparsify where the model
    will run. The model can be trained on; zeros stay.

    Args:
        model: Built Functional or Sequential model.
        batch_size: Examples a call.
        sample: As for `tf_ssl.multiply_adds`.
        exclude: Names of layers, or patterns as in fnmatch, that stay dense.
        measure: False: choose by `custom_ops.plan`, without running anything.
        least_speed_up: Time of the dense over that of the sparse layer from
            which on it is replaced, >= 1.
        seconds: Time for each layer, and four times that for the models.
        values_dtype: "float32", or "bfloat16": rounded, half the bytes.

    Returns:
        A model, Sequential if the argument is, with `.sparsify_report`, a
        `SparsifyReport`: which layers, which not, and why.

    Raises:
        TypeError: No Keras model.
        ValueError: It is not built, or is a subclass with Python code; an
            argument is none of these; a pattern matches no layer.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> print(sparsify(model).sparsify_report)
    dense...: dense: no zeros

    Reference: Park et al., "Faster CNNs with Direct Sparse Convolutions and
    Guided Pruning", ICLR 2017.
    """
    if functional(model) is None:
        raise ValueError(
            "Invalid value for argument model. Expected a built Functional or "
            f"Sequential model. Received: {model!r}."
        )
    check_times((batch_size,), seconds)
    checks.choice("values_dtype", values_dtype, ("float32", "bfloat16"))
    if not checks.is_number(least_speed_up) or least_speed_up < 1:
        raise ValueError(
            "Invalid value for argument least_speed_up. Expected a number >= "
            f"1. Received: least_speed_up={least_speed_up!r}"
        )
    inputs = inputs_for(model, batch_size, sample)
    layers = {
        name: part
        for name, part in model_layers(model, inputs, batch_size).items()
        if getattr(part.layer, "kernel", None) is not None
    }
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    _check_patterns(exclude, layers)
    rows, successors = [], {}
    for name, part in layers.items():
        excluded = any(fnmatch.fnmatchcase(name, p) for p in exclude)
        reason = "excluded" if excluded else _reason_to_stay(part.layer)
        if reason is not None:
            rows.append(SparsifiedLayer(name, False, reason))
            continue
        sparse = _sparse(part.layer, values_dtype)
        row = _choose(name, part, sparse, measure, least_speed_up, seconds)
        rows.append(row)
        if row.is_sparse:
            successors[part.layer] = [sparse]
    new = replace_layers(model, successors)
    times = None
    if successors and measure:
        times = _time_models(model, new, batch_size, sample, 4 * seconds)
        if times[1] >= times[0]:
            new = replace_layers(model, {})
            reason = "the whole model was not faster"
            rows = [
                dataclasses.replace(row, is_sparse=False, reason=reason)
                if row.is_sparse
                else row
                for row in rows
            ]
    new.sparsify_report = SparsifyReport(rows, batch_size, times)
    return new


def _check_patterns(patterns, names):
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
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


def _sparse(layer, values_dtype):
    if isinstance(layer, keras.layers.Dense):
        return SparseDense.from_dense(layer, values_dtype)
    return SparseConv2D.from_conv(layer, values_dtype)


def _choose(name, part, sparse, measure, least_speed_up, seconds):
    """What becomes of a layer."""
    kernel = SparseKernel(
        keras.ops.convert_to_numpy(sparse.positions),
        keras.ops.cast(sparse.values, "float32"),
        (1, 1, *sparse.kernel_shape)[-4:],
    )
    plan: Plan = plan_of_call(part.layer, part.calls[0], kernel)
    ms = plan.dense_ms, plan.sparse_ms
    by = "modelled"
    if measure and ms[1] < _HOPELESS * ms[0]:
        by = "measured"
        noise: dict = {}
        calls = [dataclasses.replace(c, layer=sparse) for c in part.calls]
        times = in_turn(
            {
                "dense": layer_alone(part.calls, noise),
                "sparse": layer_alone(calls, noise),
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
