"""Whether another model computes what a model with other values computes."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.graph.difference import relative_difference
from tf_ssl.graph.walk import functional

# What rounding may change, as max|a - b| / max|a|, by the coarsest type that a
# model computes in. Measured on 48 chains a type, of 2 to 12 Dense or Conv2D
# layers, 16 to 512 wide, in which 20 or 80 % of the units were constant and
# were folded into biases, which are rounded anew: at most 5.4e-7 in float32,
# 9.6e-4 in float16 (mixed or not), 8.0e-3 in bfloat16. The short types have 5
# times that; float32 and float64 more, for longer sums and for constants that
# cancel. TF32 rounds factors as float16 does.
_TOLERANCES = {
    "float64": 1e-10,
    "float32": 1e-5,
    "tf32": 5e-3,
    "float16": 5e-3,
    "bfloat16": 4e-2,
}


@contextlib.contextmanager
def values_assigned(model, values):
    """Within the block, variables of a model have other values.

    Afterwards all its variables are as before, to the bit: those that it
    assigned itself as well, such as states of recurrent layers, moving
    statistics and seeds.

    Args:
        model: Built `keras.Model`.
        values: Pairs (variable, array of its shape); or what has `items()`
            that are such pairs. Numbers are rounded to the variable's type.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel
    >>> with values_assigned(model, [(kernel, [[3.0], [4.0]])]):
    ...     print(model(np.ones((1, 2))).numpy())
    [[7.]]
    """
    pairs = list(values.items() if hasattr(values, "items") else values)
    variables = {id(v): v for v in [*state_of(model), *(v for v, _ in pairs)]}
    # Not v.value, which is of another type within an autocast scope.
    before = [(v, tf.identity(v._value)) for v in variables.values()]
    try:
        for variable, value in pairs:
            dtype = variable._value.dtype
            value = np.asarray(value).astype(dtype.as_numpy_dtype)
            variable.assign(tf.constant(value, dtype))
        yield
    finally:
        for variable, value in before:
            variable._value.assign(value)


def state_of(model) -> list[keras.Variable]:
    """All variables of a model, those too that it does not name.

    States of recurrent layers and variables of metrics are in no
    `model.variables`.
    """
    found = {id(v): v for v in (*model.variables, *model.metrics_variables)}
    for layer in model._flatten_layers():
        for value in _flat(list(vars(layer).values())):
            if isinstance(value, keras.random.SeedGenerator):
                value = value.state
            if isinstance(value, keras.Variable):
                found.setdefault(id(value), value)
    return [v for v in found.values() if v._value is not None]


def differences(model, values, other, inputs) -> list[float]:
    """How far outputs of another model are from those of a model.

    Both are called with `training=False` on the same inputs, each from the
    states that it has, which it has afterwards again.

    Args:
        model: Built `keras.Model`.
        values: What its variables are meanwhile; see `values_assigned`.
        other: Another one, with outputs of the same structure.
        inputs: Arrays in the structure that the models take.

    Returns:
        For each output max|a - b| / max|a|, see `relative_difference`; inf
        where only `other` is not finite. -inf in both, as of masked scores, are
        equal. Integers, truth values and strings: 0 if all are equal, else inf.

    Raises:
        ValueError: Outputs of `model` hold NaN or infinities, or outputs have
            other shapes.
    """
    with values_assigned(model, values):
        expected = _outputs(model, inputs)
    with values_assigned(other, ()):
        actual = _outputs(other, inputs)
    names = _names(model, len(expected))
    return [
        _difference(model, name, a, b)
        for name, a, b in zip(names, expected, actual, strict=True)
    ]


def check(
    model,
    values,
    other,
    inputs,
    tolerance: float | None = None,
    what: str = "shrunk",
) -> float:
    """The largest difference of outputs, if it is small enough.

    Args:
        model: See `differences`.
        values: Likewise.
        other: Likewise.
        inputs: Likewise.
        tolerance: Largest max|a - b| / max|a| of an output; None:
            `tolerance_of(model)`.
        what: The word for `other` in the error.

    Raises:
        RuntimeError: An output differs by more.
        ValueError: See `differences`.
    """
    if tolerance is None:
        tolerance = tolerance_of(model)
    found = differences(model, values, other, inputs)
    names = _names(model, len(found))
    for name, difference in zip(names, found, strict=True):
        if not difference <= tolerance:
            raise RuntimeError(
                f"Output {name} of the {what} model differs from that of "
                f"{model.name} by {difference:.1e} (max|a - b| / max|a|), more "
                f"than tolerance={tolerance:.1e}."
            )
    return max(found, default=0.0)


def tolerance_of(model) -> float:
    """What rounding may change of outputs, as max|a - b| / max|a|.

    By the coarsest type that one of its layers computes in: 1e-10 for float64,
    1e-5 for float32, 5e-3 for float16 and for float32 on a GPU that rounds
    products to TF32, 4e-2 for bfloat16.

    >>> tolerance_of(keras.Sequential([keras.Input((2,)),
    ...                                keras.layers.Dense(1)]))
    1e-05
    """
    # Models and inputs only hand on; their type is that of no sum.
    kinds = {
        layer.compute_dtype
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.layers.InputLayer)
        and functional(layer) is None
    }
    if (
        "float32" in kinds
        and tf.config.experimental.tensor_float_32_execution_enabled()
        and tf.config.list_logical_devices("GPU")
    ):
        kinds.add("tf32")
    return max(_TOLERANCES.get(kind, 0.0) for kind in (*kinds, "float64"))


def _flat(value) -> list:
    """What lists, tuples and dicts hold; keys need no order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [x for part in value for x in _flat(part)]
    return [value]


def _outputs(model, inputs) -> list[np.ndarray]:
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [_array(x) for x in outputs if x is not None]


def _array(x) -> np.ndarray:
    if isinstance(x, tf.RaggedTensor):
        x = x.to_tensor()
    if isinstance(x, tf.SparseTensor):
        x = tf.sparse.to_dense(x)
    x = tf.convert_to_tensor(x)
    if x.dtype.is_complex:
        x = tf.stack([tf.math.real(x), tf.math.imag(x)], axis=-1)
    if x.dtype.is_floating and x.dtype != tf.float64:
        x = tf.cast(x, tf.float32)  # NumPy has no bfloat16
    return x.numpy()


def _names(model, count: int) -> list[str]:
    names = getattr(model, "output_names", None) or []
    if len(names) != count or len(set(names)) < count:
        return [str(i) for i in range(count)]
    return [f"{i} ({name})" for i, name in enumerate(names)]


def _difference(model, name, a, b) -> float:
    if a.shape != b.shape or a.dtype.kind != "f":
        return _exact(name, a, b)
    masked = np.isneginf(a) & np.isneginf(b)
    if not np.isfinite(a[~masked]).all() or (a.size and masked.all()):
        raise ValueError(
            f"Output {name} of {model.name} holds NaN or infinities on these "
            "inputs, where nothing can be compared. If they are random input: "
            "pass sample=, an example of the model's input on which its "
            "outputs are finite."
        )
    if not np.isfinite(b[~masked]).all():
        return np.inf
    return relative_difference(
        np.where(masked, 0.0, a), np.where(masked, 0.0, b)
    )


def _exact(name, a, b) -> float:
    if a.shape != b.shape:
        raise ValueError(
            f"Expected outputs of the same shape. Received: output {name} with "
            f"shapes {a.shape} and {b.shape}"
        )
    return 0.0 if (a == b).all() else np.inf
