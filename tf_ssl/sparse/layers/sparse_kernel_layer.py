"""What layers with a sparse kernel have in common."""

from __future__ import annotations

import keras
import numpy as np

import custom_ops
from tf_ssl import checks


class SparseKernelLayer(keras.layers.Layer):
    """A layer whose kernel is a list of its non-zeros.

    Weights: `values` `[non-zeros]`, trained, in the order of `positions`
    `[non-zeros]`, int32, not trained: flat indices into the kernel, ascending.
    The positions are fixed: training moves values, also through zero. Sums are
    of float32 whatever the layer's dtype policy.

    Keras does not compile a model with such a layer by XLA; under
    `tf.function(jit_compile=True)` a dense convolution computes the same.

    Args:
        num_nonzeros: Integer >= 0.
        activation: As in `keras.layers.Dense`.
        use_bias: Whether there is a bias.
        values_dtype: "float32", or "bfloat16": half the bytes.
        values_regularizer: Of the values.
        bias_regularizer: Of the bias.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_nonzeros,
        activation=None,
        use_bias=True,
        values_dtype="float32",
        values_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_nonzeros = checks.integer("num_nonzeros", num_nonzeros, 0)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        checks.choice("values_dtype", values_dtype, ("float32", "bfloat16"))
        self.values_dtype = values_dtype
        self.values_regularizer = keras.regularizers.get(values_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias = None
        self.supports_jit = False

    def add_kernel(self, shape: tuple[int, ...]) -> None:
        """Makes the variables.

        Args:
            shape: Of the whole kernel; its last axis is that of the outputs.

        Raises:
            ValueError: The kernel is smaller than its non-zeros.
        """
        size = int(np.prod(shape))
        if self.num_nonzeros > size:
            raise ValueError(
                f"{self.name} has num_nonzeros={self.num_nonzeros} in a kernel "
                f"of the shape {shape} with {size} elements"
            )
        self.kernel_shape = shape
        self.values = self.add_weight(
            (self.num_nonzeros,),
            initializer="zeros",
            dtype=self.values_dtype,
            # A cast would be new values, to be prepared anew at each call.
            autocast=False,
            regularizer=self.values_regularizer,
            name="values",
        )
        self.positions = self.add_weight(
            (self.num_nonzeros,),
            initializer=_first_positions,
            dtype="int32",
            trainable=False,
            autocast=False,
            name="positions",
        )
        if self.use_bias:
            self.bias = self.add_weight(
                (shape[-1],),
                initializer="zeros",
                autocast=False,
                regularizer=self.bias_regularizer,
                name="bias",
            )

    def assign_kernel(self, kernel, bias=None) -> None:
        """Takes the non-zeros of a kernel, and a bias.

        Args:
            kernel: Array of the kernel's shape with `num_nonzeros` elements
                other than 0; NaN is one.
            bias: Array `[outputs]`, or None.

        Raises:
            ValueError: The kernel has another shape, or number of non-zeros.
        """
        kernel = keras.ops.convert_to_numpy(kernel)
        positions = np.flatnonzero(kernel)
        if kernel.shape != self.kernel_shape or (
            len(positions) != self.num_nonzeros
        ):
            raise ValueError(
                "Invalid value for argument kernel. Expected the shape "
                f"{self.kernel_shape} with {self.num_nonzeros} non-zeros. "
                f"Received: {kernel.shape} with {len(positions)}"
            )
        self.positions.assign(positions.astype(np.int32))
        self.values.assign(kernel.ravel()[positions])
        if bias is not None:
            self.bias.assign(bias)

    def to_dense(self) -> np.ndarray:
        """The kernel with its zeros."""
        kernel = np.zeros(int(np.prod(self.kernel_shape)), np.float32)
        kernel[keras.ops.convert_to_numpy(self.positions)] = (
            keras.ops.convert_to_numpy(keras.ops.cast(self.values, "float32"))
        )
        return kernel.reshape(self.kernel_shape)

    def convolve(self, x, kernel_shape, **geometry):
        """The convolution with bias and activation.

        Args:
            x: `[batch, height, width, channels]`, or channels first.
            kernel_shape: `[height, width, channels, filters]`.
            **geometry: Of `custom_ops.sparse_conv2d`.
        """
        dtype = x.dtype
        relu = self.activation is keras.activations.relu
        bias = self.bias
        outputs = custom_ops.sparse_conv2d(
            keras.ops.cast(x, "float32"),
            custom_ops.SparseKernel(
                self.positions.value, self.values.value, kernel_shape
            ),
            bias=None if bias is None else keras.ops.cast(bias, "float32"),
            activation="relu" if relu else None,
            implementation="sparse",
            **geometry,
        )
        outputs = keras.ops.cast(outputs, dtype)
        return outputs if relu else self.activation(outputs)

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        serialize = keras.regularizers.serialize
        return {
            **super().get_config(),
            "num_nonzeros": self.num_nonzeros,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "values_dtype": self.values_dtype,
            "values_regularizer": serialize(self.values_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
        }


def elementwise_only(regularizer):
    """A regularizer that values alone can have; None for any other."""
    regularizers = keras.regularizers
    kinds = (regularizers.L1, regularizers.L2, regularizers.L1L2)
    return regularizer if type(regularizer) in kinds else None


def _first_positions(shape, dtype=None):
    """Valid ones, until others are assigned or loaded."""
    return keras.ops.arange(shape[0], dtype=dtype or "int32")
