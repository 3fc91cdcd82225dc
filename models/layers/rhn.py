"""Recurrent highway network: several micro-layers a step, one state."""

from __future__ import annotations

import keras
import numpy as np

import tf_ssl
from models.seeds import layer_seeds


@keras.saving.register_keras_serializable(package="models")
class RHNCell(keras.layers.SimpleRNNCell):
    """One step of `RHN`, from input and state to the new state.

    Takes the arguments of `RHN`, and `name`, `trainable` and `dtype`. Keras'
    own cell keeps the initializers, the regularizers and the masks of dropout.
    """

    def __init__(
        self,
        units,
        depth=10,
        transform_bias=-2.0,
        recurrent_initializer="glorot_uniform",
        **kwargs,
    ):
        for name, value in (("units", units), ("depth", depth)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"Invalid value for argument {name}. Expected an integer "
                    f">= 1. Received: {name}={value}"
                )
        for name in ("dropout", "recurrent_dropout"):
            if not 0.0 <= kwargs.get(name, 0.0) < 1.0:
                raise ValueError(
                    f"Invalid value for argument {name}. Expected a rate in "
                    f"[0, 1). Received: {name}={kwargs[name]}"
                )
        known = {*_ARGUMENTS, "name", "trainable", "dtype"}
        for name in kwargs:
            if name not in known:
                raise ValueError(
                    f"Invalid argument. Expected one of {sorted(known)}. "
                    f"Received: {name}"
                )
        super().__init__(
            units, recurrent_initializer=recurrent_initializer, **kwargs
        )
        self.depth = depth
        self.transform_bias = transform_bias

    def build(self, input_shape):
        size = 2 * self.units  # columns of h, then of t
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], size),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        # One variable a micro-layer: a slice of a stack would be copied at
        # every step.
        self.recurrent_kernels = [
            self.add_weight(
                name=f"recurrent_kernel_{i}",
                shape=(self.units, size),
                initializer=initializer,
                regularizer=self.recurrent_regularizer,
            )
            for i, initializer in enumerate(
                _different(self.recurrent_initializer, self.depth)
            )
        ]
        self.biases = [
            self.add_weight(
                name=f"bias_{i}", shape=(size,), initializer=self._bias
            )
            for i in range(self.depth)
        ]

    def _bias(self, shape, dtype=None):
        halves = np.repeat([0.0, self.transform_bias], self.units)
        return keras.ops.convert_to_tensor(halves, dtype)

    def call(self, sequence, states, training=False):
        state = states[0]  # [batch, units]
        mask = None
        if training and self.dropout > 0:
            sequence = sequence * self.get_dropout_mask(sequence)
        if training and self.recurrent_dropout > 0:
            mask = self.get_recurrent_dropout_mask(state)
        entering = keras.ops.matmul(sequence, self.kernel)
        for kernel, bias in zip(
            self.recurrent_kernels, self.biases, strict=True
        ):
            seen = state if mask is None else state * mask
            z = keras.ops.matmul(seen, kernel) + bias
            if entering is not None:
                z, entering = z + entering, None
            h, t = keras.ops.split(z, 2, axis=-1)
            t = keras.ops.sigmoid(t)
            state = state + t * (keras.ops.tanh(h) - state)
        return state, [state]

    def get_config(self):
        config = {
            **super().get_config(),
            "depth": self.depth,
            "transform_bias": self.transform_bias,
        }
        known = (*_ARGUMENTS, "name", "trainable", "dtype")
        return {name: config[name] for name in known}


@keras.saving.register_keras_serializable(package="models")
class RHN(keras.layers.RNN):
    """Recurrent highway layer: `depth` micro-layers a step, carry coupled.

    From input x and the state s of the step before, for l = 0 .. depth - 1

        h = tanh([l = 0] x W_h + s R_h[l] + b_h[l])
        t = sigmoid([l = 0] x W_t + s R_t[l] + b_t[l])
        s <- s + t * (h - s)

    and s is the output. Weights of h and t lie side by side: `kernel`
    `[features, 2 units]`; for each l `recurrent_kernel_l` `[units, 2 units]`
    and `bias_l` `[2 units]`.

    In training, x is multiplied by one mask and s, where R reads it, by
    another; both are drawn once a sequence and serve all steps, micro-layers, h
    and t (variational dropout).

    Example:
    >>> import numpy as np
    >>> layer = RHN(3, depth=2, return_sequences=True)
    >>> layer(np.zeros((1, 4, 5), "float32")).shape
    TensorShape([1, 4, 3])

    Args:
      units: size of the state, at least 1.
      depth: micro-layers a step (recurrence depth), at least 1; default 10.
      transform_bias: initial b_t; default -2: most of the state is carried.
      kernel_initializer: of `kernel`.
      recurrent_initializer: of `recurrent_kernel_l`, other numbers for each l.
      kernel_regularizer: of `kernel`.
      recurrent_regularizer: of each `recurrent_kernel_l`.
      dropout: share of x that is dropped, in [0, 1).
      recurrent_dropout: share of s that is dropped, in [0, 1).
      seed: of the masks.
      **kwargs: of `keras.layers.RNN`: `return_sequences`, `return_state`,
        `stateful`, `go_backwards`, `unroll`, ...

    Call arguments: as of `keras.layers.RNN`; one state `[batch, units]`.

    Raises:
      ValueError: an argument is outside its range.

    Reference:
      Zilly et al., Recurrent highway networks, ICML 2017, equations 6 to 9,
      with c = 1 - t.
    """

    def __init__(
        self,
        units: int,
        depth: int = 10,
        transform_bias: float = -2.0,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="glorot_uniform",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        cell = RHNCell(
            units,
            depth,
            transform_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            trainable=kwargs.get("trainable", True),
            dtype=kwargs.get("dtype"),
            name="rhn_cell",  # the same in every model, as Keras' own cells
        )
        super().__init__(cell, **kwargs)
        for name in _ARGUMENTS:
            setattr(self, name, getattr(cell, name))

    def get_config(self):
        config = super().get_config()
        of_cell = config.pop("cell")["config"]
        return {**config, **{name: of_cell[name] for name in _ARGUMENTS}}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


_ARGUMENTS = (
    "units",
    "depth",
    "transform_bias",
    "kernel_initializer",
    "recurrent_initializer",
    "kernel_regularizer",
    "recurrent_regularizer",
    "dropout",
    "recurrent_dropout",
    "seed",
)


def _different(initializer, count):
    """Copies that draw different numbers: one called again repeats its own."""
    config = initializer.get_config()
    seed = config.get("seed", "none")
    if not (seed is None or isinstance(seed, int)):
        return [initializer] * count
    return [
        type(initializer).from_config({**config, "seed": one})
        for one in layer_seeds(seed, count)
    ]


@tf_ssl.structure_rule(RHN)
class RHNRule(tf_ssl.rules.Recurrent):
    """A unit is one index through all micro-layers.

    It goes if nothing reads it, or if h stays zero in every micro-layer: then
    the state begins and stays zero.
    """

    gates = 2  # h, t

    def slices(self, tracer, read, made):
        self.made, cell = made, self.cell()
        columns = np.tile(made, self.gates)
        tracer.slice(cell.kernel, "in", read, 0)
        tracer.slice(cell.kernel, "out", columns, 1)
        for kernel, bias in zip(
            cell.recurrent_kernels, cell.biases, strict=True
        ):
            tracer.slice(kernel, "out", columns, 1)
            tracer.slice(kernel, "in", made, 0)
            tracer.slice(bias, "out", columns, -1)

    def silent(self, read, given):
        cell, size = self.cell(), self.size
        weights = [cell.kernel, *cell.recurrent_kernels, *cell.biases]
        silent = np.full(size, not self.layer.stateful)
        for variable in weights:
            of_h = np.atleast_2d(read(variable))[:, :size]
            silent &= ~(of_h != 0).any(axis=0)
        for state in given:
            silent &= state == 0
        return silent

    def reads_itself(self, read):
        size = self.size
        reads = np.zeros((size, size), bool)  # [read, by]
        for kernel in self.cell().recurrent_kernels:
            weights = read(kernel).reshape(size, self.gates, size)
            reads |= (weights != 0).any(axis=1)
        return reads

    def foldable(self, read, constants, index):
        values = constants[-1]
        return {-1: ~np.isnan(values) | (index > 0)}

    def folds(self, read, constants, index):
        if index > 0:
            return []
        cell = self.cell()
        delta = constants[-1] @ read(cell.kernel).astype(np.float64)
        return [(cell.biases[0], delta)]


@tf_ssl.multiply_add_rule(RHN)
def _multiply_adds(layer, call):
    batch_size, steps, features = call.input_shapes[0]
    a_step = features + layer.depth * layer.units
    return batch_size * steps * a_step * 2 * layer.units
