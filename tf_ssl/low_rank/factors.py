"""The two factors of a layer's kernel."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

METHODS = ("svd", "pca", "channel")

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


def is_decomposable(layer) -> str | None:
    """None, or the reason why a layer cannot be decomposed."""
    if type(layer) is keras.layers.Dense:
        sizes = layer.kernel.shape
    elif type(layer) in _CONVOLUTIONS:
        if layer.groups != 1:
            return "a grouped convolution"
        sizes = (int(np.prod(layer.kernel.shape[:-1])), layer.filters)
    else:
        return f"a {type(layer).__name__}"
    if getattr(layer, "lora_enabled", False) or getattr(
        layer, "quantization_mode", None
    ):
        return "quantized, or with LoRA factors"
    return "rank 1 already" if min(sizes) < 2 else None


@dataclasses.dataclass(frozen=True)
class Factors:
    """Singular value decomposition of a layer's kernel as a matrix.

    Attributes:
        layer: Dense or convolution layer.
        method: One of `METHODS`.
        left: float64 `[rows, full_rank]`, orthonormal columns.
        singular_values: float64 `[full_rank]`, falling.
        right: float64 `[full_rank, columns]`, orthonormal rows.

    Rows are the positions (height, width, cin) of a filter and columns the
    filters; for "channel" rows are cin, columns (height, width, filter).
    """

    layer: keras.Layer
    method: str
    left: np.ndarray
    singular_values: np.ndarray
    right: np.ndarray

    @property
    def full_rank(self) -> int:
        """Most basis filters."""
        return len(self.singular_values)

    @property
    def dense(self) -> int:
        """Multiply-adds of the layer for one output position."""
        return self.left.shape[0] * self.right.shape[1]

    def multiply_adds(self, rank: int) -> int:
        """Those of both factors, for one output position."""
        rows, columns = self.left.shape[0], self.right.shape[1]
        if self.method == "channel":
            # The first runs at input positions: more where there is a stride.
            strides = np.prod(getattr(self.layer, "strides", 1), dtype=int)
            rows *= int(strides)
        return rank * (rows + columns)

    def energy(self, rank: int) -> float:
        """Share of the squared singular values that a rank keeps."""
        squares = np.square(self.singular_values)
        total = squares.sum()
        return float(squares[:rank].sum() / total) if total else 1.0

    def rank_of(self, energy: float) -> int:
        """The least rank, >= 1, that keeps this share."""
        squares = np.square(self.singular_values)
        if not squares.any():
            return 1
        shares = np.cumsum(squares) / squares.sum()
        # Rounding in the sum must not cost a rank, nor leave it out at 1.
        if energy >= 1:
            return self.full_rank
        return min(int(np.searchsorted(shares, energy)) + 1, self.full_rank)

    def product(self, rank: int) -> np.ndarray:
        """The nearest kernel of this rank, of the kernel's shape."""
        values = self.singular_values[:rank]
        matrix = (self.left[:, :rank] * values) @ self.right[:rank]
        shape = tuple(self.layer.kernel.shape)
        if self.method == "channel":
            matrix = matrix.reshape(shape[-2], *shape[:-2], shape[-1])
            return np.moveaxis(matrix, 0, -2)
        return matrix.reshape(shape)

    def layers(self, rank: int, name: str | None = None) -> list[keras.Layer]:
        """The two layers, with their weights.

        Args:
            rank: Basis filters.
            name: Of the second; None: that of the layer.
        """
        scale = self.singular_values[:rank]
        first = self.left[:, :rank]
        second = self.right[:rank]
        if self.method == "pca":
            second = scale[:, None] * second
        else:
            root = np.sqrt(scale)
            first, second = first * root, root[:, None] * second
        old = self.layer
        name = name or old.name
        config = {**old.get_config(), "name": name}
        basis = {
            **config,
            "name": f"{name}_basis",
            "activation": "linear",
            "use_bias": False,
        }
        after = dict(config)
        shape = tuple(old.kernel.shape)
        if isinstance(old, keras.layers.Dense):
            basis["units"] = rank
            shapes = (shape[0], rank), (rank, shape[1])
        else:
            window = len(shape) - 2
            point = {
                "kernel_size": (1,) * window,
                "strides": (1,) * window,
                "dilation_rate": (1,) * window,
                "padding": "valid",
            }
            basis["filters"] = rank
            if self.method == "channel":
                basis.update(point)
                shapes = (
                    (*(1,) * window, shape[-2], rank),
                    (*shape[:-2], rank, shape[-1]),
                )
                second = np.moveaxis(
                    second.reshape(rank, *shape[:-2], shape[-1]), 0, -2
                )
            else:
                after.update(point)
                shapes = (*shape[:-1], rank), (*(1,) * window, rank, shape[-1])
        made = [type(old).from_config(c) for c in (basis, after)]
        channels_last = getattr(old, "data_format", None) != "channels_first"
        for layer, size, value in zip(
            made, shapes, (first, second), strict=True
        ):
            inputs = [None] * len(size)
            inputs[-1 if channels_last else 1] = size[-2]
            layer.build(tuple(inputs))
            layer.kernel.assign(value.reshape(size))
        if old.use_bias:
            made[1].bias.assign(old.bias)
        return made


def factors(layer, method: str) -> Factors:
    """Decomposes the kernel of a layer for which `is_decomposable` is None."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    if method == "channel":
        matrix = np.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1)
    else:
        matrix = kernel.reshape(-1, kernel.shape[-1])
    if not np.isfinite(matrix).all():
        nothing = np.full(min(matrix.shape), np.nan)
        return Factors(layer, method, matrix, nothing, matrix)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return Factors(layer, method, left, values, right)
