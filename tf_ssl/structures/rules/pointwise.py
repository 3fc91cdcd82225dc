"""What treats every number alike, and so keeps units apart."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tf_ssl.structures.rules.base import (
    MIXING_ACTIVATIONS,
    Rule,
    Unknown,
    call_numpy,
    structure_rule,
)


@structure_rule(
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
    layers.Masking,
    layers.Rescaling,
    "Relu",
    "Relu6",
    "Sigmoid",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "Silu",
    "Gelu",
    "Elu",
    "Selu",
    "Celu",
    "Mish",
    "LeakyRelu",
    "Softplus",
    "Softsign",
    "SoftShrink",
    "LogSigmoid",
    "Tanh",
    "Absolute",
    "Abs",
    "Negative",
    "Square",
    "Sqrt",
    "Exp",
    "Log",
    "Log1p",
    "Sign",
    "Clip",
    "Cast",
    "StopGradient",
)
class Pointwise(Rule):
    """y = f(x), in inference."""

    def trace(self, tracer, inputs):
        activation = getattr(self.op, "activation", None)
        name = getattr(activation, "__name__", "")
        if name in MIXING_ACTIVATIONS:
            return self._keep_all(tracer, inputs, f"has the activation {name}")
        if isinstance(self.op, layers.Rescaling) and (
            np.ndim(self.op.scale) or np.ndim(self.op.offset)
        ):
            return self._keep_all(
                tracer, inputs, "scales each channel by itself"
            )
        return super().trace(tracer, inputs)

    def _keep_all(self, tracer, inputs, what):
        if inputs[0] is not None:
            tracer.elements.fix(inputs[0].ids, f"{self.op.name} {what}")
        return [inputs[0]]

    def constants(self, read, inputs):
        return [self.of_constants(inputs[0])]

    def of_constants(self, values):
        """The operation on constants; NaN stays."""
        unknown = np.isnan(values)
        # No other axis matters, but some layers insist on the rank.
        shape = [1] * (len(self.call.input_shapes[0]) - 1) + [-1]
        tensor = keras.ops.convert_to_tensor(
            np.where(unknown, 0.0, values).reshape(shape), "float32"
        )
        if isinstance(self.op, layers.Masking):
            return values
        result = call_numpy(self.op, self.call, iter([tensor]))
        return np.where(unknown, np.nan, np.ravel(result).astype(np.float64))


@structure_rule(layers.PReLU)
class PReLU(Rule):
    """Slopes of their own: they go with the unit."""

    def trace(self, tracer, inputs):
        rank = len(self.call.input_shapes[0])
        if inputs[0] is None:
            return Unknown(self.call).trace(tracer, inputs)
        axis = inputs[0].axis % rank - 1  # alpha has no axis of the batch
        if self.op.alpha.shape[axis] == len(inputs[0].ids):
            tracer.slice(self.op.alpha, "norm", inputs[0].ids, axis)
        return [inputs[0]]

    def constants(self, read, inputs):
        # A negative constant could meet a different slope at each place.
        return [np.where(inputs[0] >= 0, inputs[0], np.nan)]


@structure_rule(
    layers.Softmax, "Softmax", "LogSoftmax", layers.UnitNormalization
)
class Mixing(Unknown):
    """Every unit has an influence on every other."""

    def trace(self, tracer, inputs):
        if inputs[0] is not None:
            tracer.elements.fix(
                inputs[0].ids, f"{self.op.name} mixes all units of an example"
            )
        return [inputs[0]]

    def constants(self, read, inputs):
        return [np.full_like(inputs[0], np.nan)]
