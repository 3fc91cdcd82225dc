"""Operations that treat every number alike, and so keep units apart."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import Tensor
from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.table import structure_rule
from tf_ssl.structures.units import Space

_UNARY = """
    Relu Relu6 Sigmoid SparseSigmoid HardSigmoid HardSilu HardTanh HardShrink
    Silu Gelu Elu Selu Celu Mish LeakyRelu Softplus Softsign SoftShrink
    SparsePlus Squareplus LogSigmoid TanhShrink Threshold Tanh Absolute Abs
    Fabs Negative Square Sqrt Cbrt Exp Exp2 Expm1 Log Log1p Log10 Log2 Sin Cos
    Tan Sinh Cosh Arcsin Arccos Arctan Arcsinh Arccosh Arctanh Reciprocal
    Rsqrt Erf Erfc Erfinv Sign Floor Ceil Round Trunc Clip Cast SaturateCast
    StopGradient Copy Real Isnan Isinf Isfinite LogicalNot NanToNum Deg2rad
    Rad2deg ConvertToTensor OnesLike ZerosLike FullLike Heaviside Sinc I0
""".split()
_JOINS = """
    Add Subtract Maximum Minimum Fmax Fmin Divide TrueDivide DivideNoNan Power
    FloorDivide Mod Fmod Hypot Arctan2 Logaddexp Logaddexp2 Equal NotEqual
    Greater GreaterEqual Less LessEqual LogicalOr LogicalXor BitwiseOr
    BitwiseXor Where
""".split()


@structure_rule(*_UNARY, *_JOINS)
class Elementwise(Rule):
    """y = f(a, b, ...) element by element: the units are the same.

    Arrays among the arguments are cut with the units. What is given on one
    side only, a number or an axis of length 1, is spread over all.
    """

    # Whether 0 in one of several factors makes the result 0.
    zero_absorbs = False

    def declare(self):
        self._operands = []  # (shape, Axes, index of the input or None)
        self._arrays: dict[int, dict] = {}
        for x in keras.tree.flatten((self.call.args, self.call.kwargs)):
            if isinstance(x, Tensor):
                i = self.call.index(x)
                if i is not None:
                    self._operands.append((x.shape, self.inputs[i], i))
            elif _is_array(x):
                axes = self._of_array(x)
                self._operands.append((np.shape(x), axes, None))
        if len(self.call.outputs) != 1 or any(map(_is_array, self._settings())):
            for i, _ in enumerate(self.inputs):
                self.stays("has numbers of its own for some of them", source=i)
        for axis in range(-len(self.call.output_shapes[0]), 0):
            self._join(axis, self.call.output_shapes[0][axis])

    def _settings(self):
        """What an operation holds, such as the bounds of Clip."""
        return (
            () if isinstance(self.op, keras.Layer) else vars(self.op).values()
        )

    def _of_array(self, x):
        """Elements of an array's axes: it is cut where others are."""
        key = id(x)
        if key not in self._arrays:
            self._arrays[key] = {
                axis: self.tracer.elements.new(n, Space(self.name, "value"))
                for axis, n in zip(
                    range(-np.ndim(x), 0), np.shape(x), strict=True
                )
                if n > 1 and axis != -len(self.call.output_shapes[0])
            }
        return self._arrays[key]

    def _join(self, axis, size):
        """The operands' elements along one axis are the same."""
        whole, spread, open_sides = [], [], 0
        for shape, axes, _ in self._operands:
            if -axis > len(shape):
                continue
            if axis in axes:
                if len(axes[axis]) == size:
                    whole.append(axes[axis])
                else:
                    spread.append(axes[axis])
            elif shape[axis] != 1:
                open_sides += 1
        for ids in spread:
            self.tracer.elements.fix(
                ids, f"{self.name} spreads it over all units"
            )
        if not whole:
            return
        for ids in whole[1:]:
            self.tracer.elements.union(whole[0], ids)
        if open_sides:
            self.tracer.elements.fix(
                whole[0],
                f"{self.name} joins them with what is not followed",
            )
        self.outputs[0][axis] = whole[0]

    def constants(self, read, inputs):
        found = {}
        for axis, ids in self.outputs[0].items():
            given = [
                inputs[i].get(axis, np.full(1, np.nan))
                for _, _, i in self._operands
                if i is not None
            ]
            found[axis] = np.broadcast_to(
                self._of_constants(given, axis, len(ids)), [len(ids)]
            )
        return [found]

    def _of_constants(self, given, axis, size):
        """The operation on constants along one axis."""
        rank = max(len(shape) for shape, _, _ in self._operands)
        around = [1] * rank
        around[axis] = -1
        values = iter([np.asarray(v).reshape(around) for v in given])
        unknown = np.zeros(around[:axis] + [size] + [1] * (-axis - 1), bool)
        zero = unknown.copy()

        def fill(x):
            nonlocal unknown, zero
            if isinstance(x, Tensor):
                if self.call.index(x) is None:
                    return x
                value = next(values)
                x_dtype = x.dtype
            elif _is_array(x):
                value = _along(np.asarray(x), axis, rank)
                x_dtype = keras.backend.standardize_dtype(x.dtype)
            else:
                if isinstance(x, int | float) and x == 0:
                    zero = zero | True
                return x
            unknown = unknown | np.isnan(value)
            zero = zero | (value == 0)
            if "float" in x_dtype:
                x_dtype = "float64" if x_dtype == "float64" else "float32"
            return keras.ops.convert_to_tensor(
                np.where(np.isnan(value), 1.0, value), x_dtype
            )

        args, kwargs = keras.tree.map_structure(
            fill, (self.call.args, self.call.kwargs)
        )
        with np.errstate(all="ignore"):
            result = self.compute(args, kwargs)
        result = np.asarray(keras.ops.convert_to_numpy(result), np.float64)
        result = np.broadcast_to(result, np.shape(unknown))
        result = np.where(unknown | ~np.isfinite(result), np.nan, result)
        if self.zero_absorbs:
            result = np.where(zero, 0.0, result)
        return result.reshape(-1)

    def compute(self, args, kwargs):
        """The operation, in inference."""
        if isinstance(self.op, keras.Layer):
            return self.op.call(*args, **kwargs)
        return self.op(*args, **kwargs)

    def needs(self, read, wanted, inputs, gone):
        found = [
            {axis: np.zeros(len(v), bool) for axis, v in one.items()}
            for one in inputs
        ]
        is_wanted = all(live.any() for live in wanted[0].values())
        for _, axes, i in self._operands:
            if i is None:
                continue
            for axis in axes:
                live = wanted[0].get(axis)
                if live is None:
                    found[i][axis][:] = is_wanted
                    continue
                if self.zero_absorbs:
                    live = live & ~self._zero_elsewhere(i, axis, inputs)
                if len(live) != len(axes[axis]):
                    live = live.any()
                found[i][axis] |= live
        return found

    def _zero_elsewhere(self, index, axis, inputs):
        """Where another operand is zero along an axis."""
        zero = np.zeros(len(self.outputs[0][axis]), bool)
        for _, _, i in self._operands:
            if i is None or i == index:
                continue
            values = inputs[i].get(axis)
            if values is not None:
                zero |= values == 0
        return zero

    def rearrange(self, keep, args, kwargs):
        def cut(x):
            if id(x) not in self._arrays:
                return x
            value = keras.ops.convert_to_numpy(x)
            for axis, ids in self._arrays[id(x)].items():
                value = np.compress(keep(ids), value, axis=axis)
            return value

        return (
            tuple(_map_arrays(cut, list(args))),
            {k: _map_arrays(cut, v) for k, v in kwargs.items()},
        )


def _map_arrays(cut, arguments):
    return keras.tree.map_structure(
        lambda x: cut(x) if _is_array(x) else x, arguments
    )


def _is_array(x) -> bool:
    if hasattr(x, "_keras_history") or isinstance(x, str):
        return False
    is_tensor = isinstance(x, np.ndarray) or keras.ops.is_tensor(x)
    return is_tensor and len(x.shape) > 0


def _along(array, axis, rank):
    """Values along an axis, NaN where they differ over others."""
    around = [1] * rank
    if -axis > array.ndim:
        same = array.size and (array == array.flat[0]).all()
        value = float(array.flat[0]) if same else np.nan
        return np.full(around, value)
    rows = np.moveaxis(array.astype(np.float64), axis, 0)
    rows = rows.reshape(len(rows), -1)
    values = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
    around[axis] = -1
    return values.reshape(around)


@structure_rule("Multiply", "LogicalAnd", "BitwiseAnd")
class Multiply(Elementwise):
    """Product: zero if one factor is."""

    zero_absorbs = True


@structure_rule("Add")
class Add(Elementwise):
    """Sum; a summand that is constant everywhere can go."""
