"""Variables and arrays as layers: where values of a graph come from."""

from __future__ import annotations

import keras
import numpy as np


class Source(keras.Operation):
    """A variable or an array inside an opened layer; see `opening`.

    Args:
        value: `keras.Variable`, array or tensor.
        dtype: Under which it is read.
    """

    def __init__(self, value, dtype=None):
        super().__init__()
        self.value = value
        self.dtype = dtype or keras.backend.standardize_dtype(value.dtype)

    @property
    def variable(self):
        """The variable; None for an array."""
        return self.value if isinstance(self.value, keras.Variable) else None

    def call(self, anchor):
        return keras.ops.cast(self.value, self.dtype)

    def compute_output_spec(self, anchor):
        return keras.KerasTensor(tuple(self.value.shape), self.dtype)


class Rows(keras.Operation):
    """The same for each example of a batch: x + 0, in as many rows."""

    def call(self, x, anchor):
        ops = keras.ops
        first = anchor[(slice(None), *[0] * (len(anchor.shape) - 1))]
        zeros = ops.cast(ops.zeros_like(first), x.dtype)
        zeros = ops.reshape(zeros, (-1, *[1] * (len(x.shape) - 1)))
        if keras.backend.standardize_dtype(x.dtype) == "bool":
            return ops.logical_or(zeros, x)
        # In this order: Keras takes a second argument of shape [n, 1] for a
        # bias of n channels.
        return ops.add(zeros, x)

    def compute_output_spec(self, x, anchor):
        return keras.KerasTensor((anchor.shape[0], *x.shape[1:]), x.dtype)


@keras.saving.register_keras_serializable(package="tf_ssl")
class Weight(keras.layers.Layer):
    """A variable that is added to, or multiplied with, what flows by.

    Takes the place of a variable that a layer of another library, taken apart
    by `tf_ssl.shrink`, held itself.

    Args:
        shape: Of the variable.
        weight_name: Its name.
        weight_dtype: Its type; None: that of the layer's policy.
        weight_trainable: Whether it is trained.
        **kwargs: Of `keras.layers.Layer`.

    >>> Weight((2,))(keras.ops.ones((1, 3))).shape
    TensorShape([2])
    """

    def __init__(
        self,
        shape,
        weight_name="value",
        weight_dtype=None,
        weight_trainable=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.weight_name = weight_name
        self.weight_dtype = weight_dtype
        self.weight_trainable = weight_trainable
        self.value = self.add_weight(
            self.shape,
            initializer="zeros",
            dtype=weight_dtype,
            trainable=weight_trainable,
            name=weight_name,
        )

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return keras.ops.cast(self.value, self._dtype_of_result())

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.shape, self._dtype_of_result())

    def _dtype_of_result(self):
        is_float = "float" in str(self.value.dtype)
        return self.compute_dtype if is_float else self.value.dtype

    def get_config(self):
        return {
            **super().get_config(),
            "shape": self.shape,
            "weight_name": self.weight_name,
            "weight_dtype": self.weight_dtype,
            "weight_trainable": self.weight_trainable,
        }


@keras.saving.register_keras_serializable(package="tf_ssl")
class Constant(keras.layers.Layer):
    """An array that layers read, such as the numbers of positions.

    Args:
        value: Array, or nested lists of its elements.
        value_dtype: Its type.
        **kwargs: Of `keras.layers.Layer`.

    >>> Constant([[0, 1]], "int32")(keras.ops.ones((1, 3))).numpy()
    array([[0, 1]], dtype=int32)
    """

    def __init__(self, value, value_dtype=None, **kwargs):
        super().__init__(**kwargs)
        if value_dtype is None:
            value_dtype = np.asarray(value).dtype.name
        self.value = np.asarray(value, value_dtype)
        self.value_dtype = value_dtype

    def call(self, inputs):
        return keras.ops.convert_to_tensor(self.value, self.value_dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.value.shape, self.value_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "value": self.value.tolist(),
            "value_dtype": self.value_dtype,
        }


def weight_like(source, value, name: str) -> Weight:
    """A `Weight` in place of a variable that an opened layer held.

    Args:
        source: `Source` of the variable.
        value: What the new variable is, of another shape or not.
        name: For the layer.
    """
    variable = source.variable
    policy = variable.dtype
    if source.dtype != variable.dtype:
        policy = f"mixed_{source.dtype}"
    weight = Weight(
        value.shape,
        variable.name,
        variable.dtype,
        variable.trainable,
        name=name,
        dtype=policy if "float" in variable.dtype else None,
    )
    weight.value.assign(value)
    weight.value.regularizer = variable.regularizer
    weight.value.constraint = variable.constraint
    return weight
