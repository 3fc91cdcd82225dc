"""A dense layer with a sparse kernel."""

from __future__ import annotations

import keras
from keras import ops

from tf_ssl import checks
from tf_ssl.sparse.layers.sparse_kernel_layer import (
    SparseKernelLayer,
    elementwise_only,
)


@keras.saving.register_keras_serializable(package="tf_ssl")
class SparseDense(SparseKernelLayer):
    """`keras.layers.Dense` that computes with the non-zeros of its kernel.

    Weights are `values` and `positions` `[non-zeros]` (flat indices into
    `[inputs, units]`) and `bias` `[units]`. Examples are the pixels of one
    image that a 1x1 convolution sees.

    Args:
        units: Outputs.
        num_nonzeros: Of the kernel.
        **kwargs: activation, use_bias, values_dtype ("float32" or "bfloat16"),
            values_regularizer, bias_regularizer, and those of
            `keras.layers.Layer`.

    Raises:
        ValueError: When it is built, if the kernel is smaller than its
            non-zeros.
    """

    def __init__(self, units, num_nonzeros, **kwargs):
        super().__init__(num_nonzeros, **kwargs)
        self.units = checks.integer("units", units, 1)

    @classmethod
    def from_dense(
        cls, layer: keras.layers.Dense, values_dtype="float32", name=None
    ) -> SparseDense:
        """The layer that computes what a built Dense does.

        L1 and L2 regularizers come along, others do not. Without a name it
        gets that of the layer.
        """
        kernel = ops.convert_to_numpy(layer.kernel)
        sparse = cls(
            layer.units,
            int((kernel != 0).sum()),
            activation=layer.activation,
            use_bias=layer.use_bias,
            values_dtype=values_dtype,
            values_regularizer=elementwise_only(layer.kernel_regularizer),
            bias_regularizer=layer.bias_regularizer,
            name=name or layer.name,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
        )
        sparse.build((None, kernel.shape[0]))
        sparse.assign_kernel(kernel, layer.bias)
        return sparse

    def build(self, input_shape):
        """Makes the variables."""
        self.add_kernel((input_shape[-1], self.units))
        self.built = True

    def call(self, inputs):
        """Product, bias, activation."""
        channels = self.kernel_shape[0]
        outer = ops.shape(inputs)[:-1]
        # [..., inputs] -> one image [1, examples, 1, inputs]
        outputs = self.convolve(
            ops.reshape(inputs, (1, -1, 1, channels)),
            (1, 1, *self.kernel_shape),
        )
        return ops.reshape(outputs, (*outer, self.units))

    def compute_output_shape(self, input_shape):
        """The last axis becomes `units`."""
        return (*input_shape[:-1], self.units)

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {**super().get_config(), "units": self.units}
