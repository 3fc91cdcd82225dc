"""What sparse kernels would bring a layer: `custom_ops.plan` for its calls."""

from __future__ import annotations

import dataclasses
import math

import keras

import custom_ops
from custom_ops import Plan, SparseKernel
from tf_ssl import checks
from tf_ssl.graph.inputs import inputs_for
from tf_ssl.graph.layer_calls import LayerCall, record

DENSITIES = (0.2, 0.1, 0.05)


@dataclasses.dataclass(frozen=True)
class PruningGain:
    """What zeros at random places would bring a layer, by the model of times.

    Attributes:
        break_even: Fraction of zeros from which on the sparse kernel is faster;
            None: at none, the layer gains nothing.
        speed_ups: Fraction of zeros -> modelled time of the dense over that of
            the sparse layer; empty without the C++ ops.
        dense_ms: Modelled milliseconds of the dense layer; None without them.
    """

    break_even: float | None
    speed_ups: dict[float, float]
    dense_ms: float | None

    def __str__(self):
        if self.dense_ms is None:
            return f"gains nothing: {custom_ops.describe()}"
        if self.break_even is None:
            return f"{self.dense_ms:.3f} ms dense, gains nothing"
        ratios = ", ".join(
            f"{ratio:.2f}x at {zeros:.0%}"
            for zeros, ratio in self.speed_ups.items()
        )
        return (
            f"{self.dense_ms:.3f} ms dense, faster from {self.break_even:.0%} "
            f"zeros on, {ratios}"
        )


def pruning_gains(
    model: keras.Model, *, batch_size: int = 1, sample=None
) -> dict[str, PruningGain]:
    """Which layers gain from unstructured sparsity, and from how much of it.

    For guided pruning: layers that gain nothing need no pruning, and lose no
    accuracy to it; those of large `dense_ms` are worth the most. Zeros in
    columns, rows or blocks gain earlier.

    Args:
        model: Built `keras.Model`.
        batch_size: Examples a call.
        sample: As for `tf_ssl.multiply_adds`.

    Returns:
        Name of each Conv2D and Dense layer, `"block/dense"` in a composite
        layer, -> `PruningGain`.

    Raises:
        TypeError: No Keras model.
        ValueError: It is not built, or a batch size that is no integer >= 1.

    >>> model = keras.Sequential([keras.Input((14, 14, 256)),
    ...                           keras.layers.Conv2D(256, 3, name="conv")])
    >>> pruning_gains(model)
    {'conv': PruningGain(break_even=..., speed_ups={...}, dense_ms=...)}

    Reference: Park et al., "Faster CNNs with Direct Sparse Convolutions and
    Guided Pruning", ICLR 2017, section 3.
    """
    checks.integer("batch_size", batch_size, 1)
    inputs = inputs_for(model, batch_size, sample)
    calls: dict[str, list[LayerCall]] = {}
    for call in record(model, inputs):
        if type(call.layer) in (keras.layers.Conv2D, keras.layers.Dense):
            calls.setdefault(call.name, []).append(call)
    gains = {}
    for name, own in calls.items():
        layer = own[0].layer
        if custom_ops.status()["implementation"] != "c++":
            gains[name] = PruningGain(None, {}, None)
            continue
        plans = [
            plan_of_call(layer, own[0], density=density)
            for density in DENSITIES
        ]
        gains[name] = PruningGain(
            plans[0].break_even,
            {
                round(1 - plan.density, 2): plan.dense_ms / plan.sparse_ms
                for plan in plans
            },
            plans[0].dense_ms * len(own),
        )
    return gains


def plan_of_call(
    layer,
    call: LayerCall,
    kernel: SparseKernel | None = None,
    density: float | None = None,
) -> Plan:
    """`custom_ops.plan` for a call of a Conv2D or Dense layer.

    Args:
        layer: `keras.layers.Conv2D` or `keras.layers.Dense`.
        call: Of the layer.
        kernel: `SparseKernel` of four axes; None: of the density.
        density: See `custom_ops.plan`.
    """
    shape = call.input_shapes[0]
    if isinstance(layer, keras.layers.Dense):
        # As tf_ssl.layers.SparseDense: the pixels of one image.
        return custom_ops.plan(
            kernel or (1, 1, *layer.kernel.shape),
            (1, math.prod(shape[:-1]), 1, shape[-1]),
            density=density,
        )
    first = layer.data_format == "channels_first"
    return custom_ops.plan(
        kernel or tuple(layer.kernel.shape),
        shape,
        layer.strides,
        layer.padding,
        layer.dilation_rate,
        layer.groups,
        "NCHW" if first else "NHWC",
        density=density,
    )
