"""A convolution with a sparse kernel."""

from __future__ import annotations

import keras

from tf_ssl import checks
from tf_ssl.sparse.layers.sparse_kernel_layer import (
    SparseKernelLayer,
    elementwise_only,
)


@keras.saving.register_keras_serializable(package="tf_ssl")
class SparseConv2D(SparseKernelLayer):
    """`keras.layers.Conv2D` that computes with the non-zeros of its kernel.

    `tf_ssl.sparsify` makes these; `SparseConv2D.from_conv(layer)` makes one.
    Weights are `values` and `positions` `[non-zeros]` (flat indices into
    `[height, width, channels / groups, filters]`) and `bias` `[filters]`.
    Gradients are those of the non-zeros; zeros stay.

    Args:
        filters: As in `keras.layers.Conv2D`, as are kernel_size, strides,
            padding, data_format, dilation_rate and groups.
        kernel_size: Integer or two.
        num_nonzeros: Of the kernel.
        strides: Integer or two.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first".
        dilation_rate: Integer or two.
        groups: Banks of filters.
        **kwargs: activation, use_bias, values_dtype ("float32" or "bfloat16"),
            values_regularizer, bias_regularizer, and those of
            `keras.layers.Layer`.

    Raises:
        ValueError: An argument is none of these; or, when it is built,
            channels or filters do not divide into groups, or the kernel is
            smaller than its non-zeros.

    >>> conv = keras.layers.Conv2D(4, 3)
    >>> conv.build((None, 8, 8, 2))
    >>> kernel = conv.kernel.numpy()
    >>> kernel[:, :, 1] = 0
    >>> _ = conv.kernel.assign(kernel)
    >>> SparseConv2D.from_conv(conv).num_nonzeros
    36
    """

    def __init__(
        self,
        filters,
        kernel_size,
        num_nonzeros,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        **kwargs,
    ):
        super().__init__(num_nonzeros, **kwargs)
        self.filters = checks.integer("filters", filters, 1)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        checks.choice("padding", padding, ("valid", "same"))
        self.padding = padding
        data_format = data_format or keras.config.image_data_format()
        checks.choice("data_format", data_format, _FORMATS)
        self.data_format = data_format
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        self.groups = checks.integer("groups", groups, 1)

    @classmethod
    def from_conv(
        cls, layer: keras.layers.Conv2D, values_dtype="float32", name=None
    ) -> SparseConv2D:
        """The layer that computes what a built Conv2D does.

        L1 and L2 regularizers come along, others do not. Without a name it
        gets that of the layer.
        """
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        sparse = cls(
            layer.filters,
            layer.kernel_size,
            int((kernel != 0).sum()),
            layer.strides,
            layer.padding,
            layer.data_format,
            layer.dilation_rate,
            layer.groups,
            activation=layer.activation,
            use_bias=layer.use_bias,
            values_dtype=values_dtype,
            values_regularizer=elementwise_only(layer.kernel_regularizer),
            bias_regularizer=layer.bias_regularizer,
            name=name or layer.name,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
        )
        channels = kernel.shape[2] * layer.groups
        first = layer.data_format == "channels_first"
        sparse.build(
            (None, channels, None, None)
            if first
            else (None, None, None, channels)
        )
        sparse.assign_kernel(kernel, layer.bias)
        return sparse

    def build(self, input_shape):
        """Makes the variables."""
        channels = input_shape[self._channel_axis]
        if channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{self.name}: {channels} channels and {self.filters} filters "
                f"do not divide into groups={self.groups}"
            )
        self.add_kernel(
            (*self.kernel_size, channels // self.groups, self.filters)
        )
        self.built = True

    @property
    def _channel_axis(self):
        return 1 if self.data_format == "channels_first" else -1

    def call(self, inputs):
        """Convolution, bias, activation."""
        return self.convolve(
            inputs,
            self.kernel_shape,
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
            groups=self.groups,
            data_format=_FORMATS[self.data_format],
        )

    def compute_output_shape(self, input_shape):
        """As `keras.layers.Conv2D`."""
        return keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            self.groups,
        ).compute_output_shape(input_shape)

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }


_FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


def _pair(name, value) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, list | tuple) else (value,) * 2
    if len(pair) != 2:
        raise ValueError(
            f"Invalid value for argument {name}. Expected an integer >= 1, or "
            f"two. Received: {name}={value!r}"
        )
    return tuple(checks.integer(name, n, 1) for n in pair)
