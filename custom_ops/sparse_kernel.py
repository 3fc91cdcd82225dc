"""A convolution kernel as a list of its non-zeros."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf


class SparseKernel:
    """The non-zeros of a kernel `[height, width, channels / groups, filters]`.

    Attributes:
        positions: int32 `[non-zeros]`: ascending flat indices into the kernel.
        values: float32 or bfloat16 `[non-zeros]`: the weights there; they may
            be trained. NaN is a weight.
        shape: Of the kernel.

    Kernels that share a tensor of positions share what is prepared from it.
    """

    def __init__(self, positions, values, shape):
        """Puts a kernel together.

        Args:
            positions: int32 `[non-zeros]`, strictly ascending.
            values: float32 or bfloat16 `[non-zeros]`.
            shape: Four integers >= 1.

        Raises:
            ValueError: The shape is another, the kernel has 2^31 elements or
                more, or positions and values are no vectors of one length.
                Of positions that are a tensor the convolution checks that they
                ascend.
        """
        self.shape = self.check_shape(shape)
        self.answers: dict = {}  # of custom_ops.plan.is_sparse_faster
        if not isinstance(positions, tf.Tensor | tf.Variable):
            positions = self._checked(np.asarray(positions))
        self.positions = tf.convert_to_tensor(positions, tf.int32)
        self.values = tf.convert_to_tensor(values)
        if self.values.dtype not in (tf.float32, tf.bfloat16):
            raise ValueError(
                "Invalid value for argument values. Expected float32 or "
                f"bfloat16. Received: {self.values.dtype.name}"
            )
        shapes = [t.shape for t in (self.positions, self.values)]
        if any(s.rank not in (None, 1) for s in shapes) or (
            not shapes[0].is_compatible_with(shapes[1])
        ):
            raise ValueError(
                "Invalid value for argument values. Expected one value for "
                f"each position. Received: positions of shape {shapes[0]}, "
                f"values of shape {shapes[1]}"
            )

    @staticmethod
    def check_shape(shape) -> tuple[int, ...]:
        """The shape of a kernel as a tuple; raises ValueError if it is none."""
        try:
            sizes = tuple(int(n) for n in shape)
        except (TypeError, ValueError):
            sizes = ()
        if len(sizes) != 4 or min(sizes) < 1:
            raise ValueError(
                "Invalid value for argument shape. Expected four integers >= "
                f"1: height, width, channels, filters. Received: shape={shape}"
            )
        if math.prod(sizes) >= 2**31:
            raise ValueError(
                "Invalid value for argument shape. Expected a kernel of fewer "
                f"than 2^31 elements. Received: shape={sizes}"
            )
        return sizes

    def _checked(self, positions):
        """Positions that are no tensors: those the op checks."""
        size = math.prod(self.shape)
        if positions.size == 0:
            return positions.astype(np.int32)
        if (
            positions.ndim == 1
            and positions.dtype.kind in "iu"
            and (
                0 <= positions[0]
                and positions[-1] < size
                and (positions[1:] > positions[:-1]).all()
            )
        ):
            return positions.astype(np.int32)
        raise ValueError(
            "Invalid value for argument positions. Expected ascending integers "
            f"in [0, {size}), one axis. Received: {positions!r}"
        )

    @classmethod
    def from_dense(cls, kernel, dtype=tf.float32) -> SparseKernel:
        """Takes the elements that are not 0; NaN is none.

        Args:
            kernel: Array `[height, width, channels / groups, filters]`.
            dtype: Of the values: float32, or bfloat16 for storage.

        Raises:
            ValueError: It has another rank, or 2^31 elements or more.
        """
        kernel = np.asarray(kernel)
        cls.check_shape(kernel.shape)
        positions = np.flatnonzero(kernel)
        values = tf.constant(kernel.ravel()[positions], dtype)
        return cls(positions.astype(np.int32), values, kernel.shape)

    @property
    def num_nonzeros(self) -> int | None:
        """Number of positions; None in a graph that does not know it."""
        return self.positions.shape[0]

    @property
    def density(self) -> float:
        """Non-zeros over elements."""
        return self.num_nonzeros / math.prod(self.shape)

    def to_dense(self) -> tf.Tensor:
        """The kernel with its zeros, `shape`."""
        size = math.prod(self.shape)
        dense = tf.scatter_nd(self.positions[:, None], self.values, [size])
        return tf.reshape(dense, self.shape)

    def pattern(self) -> str:
        """What kind of sparsity the kernel has.

        Returns:
            The first of these that is there: "dense" (no zeros), "columns"
            (whole rows (height, width, channel) or whole filters are zero, and
            nothing else), "block<h>x<w>" with h filters and w channels of
            (16, 1), (8, 8), (8, 1), (4, 1), (2, 1): aligned blocks that are
            zero or have at least 90 % of non-zeros, "unstructured".
        """
        mask = np.zeros(math.prod(self.shape), bool)
        mask[self.positions.numpy()] = True
        mask = mask.reshape(-1, self.shape[-1])  # [columns, filters]
        if mask.all():
            return "dense"
        if mask[mask.any(axis=1)][:, mask.any(axis=0)].all():
            return "columns"
        for filters, channels in ((16, 1), (8, 8), (8, 1), (4, 1), (2, 1)):
            if mask.shape[1] % filters or self.shape[2] % channels:
                continue
            blocks = mask.reshape(
                -1, channels, mask.shape[1] // filters, filters
            ).mean(axis=(1, 3))
            if blocks[blocks > 0].mean() >= 0.9:
                return f"block{filters}x{channels}"
        return "unstructured"

    def __repr__(self):
        return (
            f"SparseKernel(shape={self.shape}, "
            f"num_nonzeros={self.num_nonzeros})"
        )
