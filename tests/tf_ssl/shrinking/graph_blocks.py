"""Parts of random graphs: each makes a tensor of the rank of another.

Three families: images `[batch, 6, 6, channels]`, sequences `[batch, 6,
features]` and vectors `[batch, features]`.
"""

from __future__ import annotations

import keras
from keras import layers, ops

ACTIVATIONS = ["relu", "silu", "sigmoid", "softplus", "tanh", None, "gelu"]
LENGTH = 6


@keras.saving.register_keras_serializable("graph_blocks")
class LayerScale(keras.layers.Layer):
    """A scale a channel, which is opened."""

    def build(self, shape):
        self.gamma = self.add_weight((shape[-1],), "ones", name="gamma")

    def call(self, x):
        return x * self.gamma


@keras.saving.register_keras_serializable("graph_blocks")
class Block(keras.layers.Layer):
    """A composite layer: Dense, scale, Dense, sum; twice nested if deep."""

    def __init__(self, units, deep=False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.deep = units, deep

    def build(self, shape):
        self.first = layers.Dense(self.units, activation="silu")
        self.second = layers.Dense(shape[-1])
        self.scale = LayerScale()
        self.inner = Block(self.units) if self.deep else None
        self.first.build(shape)
        self.second.build((*shape[:-1], self.units))
        self.scale.build(shape)
        if self.inner:
            self.inner.build(shape)

    def call(self, x):
        y = self.scale(self.second(self.first(x)))
        return x + (self.inner(y) if self.inner else y)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        config = super().get_config()
        return {**config, "units": self.units, "deep": self.deep}


class Maker:
    """Makes parts with random sizes.

    Args:
        random: NumPy generator.
    """

    def __init__(self, random):
        self.random = random

    def pick(self, *options):
        """One of them."""
        return options[self.random.integers(len(options))]

    def size(self):
        """A number of units."""
        return int(self.random.choice([4, 5, 7, 8]))

    def act(self):
        """Name of an activation."""
        return self.pick(*ACTIVATIONS)

    def flag(self):
        """True or False."""
        return bool(self.random.integers(2))

    # -- any rank --------------------------------------------------------

    def dense(self, x):
        return layers.Dense(
            self.size(), activation=self.act(), use_bias=self.flag()
        )(x)

    def residual(self, x):
        y = layers.Dense(self.size(), activation=self.act())(x)
        return layers.Add()([x, layers.Dense(x.shape[-1])(y)])

    def norm(self, x):
        return self.pick(
            layers.BatchNormalization(),
            layers.BatchNormalization(scale=False),
            layers.RMSNormalization(),
            layers.LayerNormalization(),
            layers.UnitNormalization(),
            layers.GroupNormalization(1),
        )(x)

    def unary(self, x):
        shared = list(range(1, len(x.shape) - 1)) or None
        return self.pick(
            layers.Activation("softplus"),
            layers.LeakyReLU(),
            layers.PReLU(alpha_initializer="random_normal"),
            layers.PReLU("random_normal", shared_axes=shared),
            layers.ELU(),
            layers.Rescaling(2.0, offset=0.5),
            layers.Dropout(0.3),
            layers.Softmax(),
            LayerScale(),
            lambda y: ops.clip(y * 2.0 - 0.3, -1.0, 1.0),
            lambda y: ops.where(y > 0.1, y, ops.square(y)),
        )(x)

    def layer_as_activation(self, x):
        activation = self.pick(layers.PReLU("random_normal"), layers.ReLU(0.5))
        return layers.Dense(self.size(), activation=activation)(x)

    def join(self, x):
        y = layers.Dense(x.shape[-1], activation=self.act())(x)
        return self.pick(
            layers.Multiply(),
            layers.Maximum(),
            layers.Average(),
            layers.Concatenate(),
            layers.Subtract(),
            lambda pair: ops.concatenate(pair[::-1], axis=-1),
            lambda pair: pair[0] * ops.sigmoid(pair[1]),
        )([x, y])

    def split(self, x):
        x = layers.Dense(9, activation=self.act())(x)
        a, b, c = self.pick(
            lambda: ops.split(x, 3, axis=-1),
            lambda: ops.split(x, [2, 5], axis=-1),
            lambda: (x[..., :3], x[..., 3:6], x[..., -3:]),
            lambda: ops.split(x, [3, 6], axis=-1),
        )()
        if a.shape != c.shape or a.shape != b.shape:
            return ops.concatenate([c, a, b], axis=-1)
        return ops.concatenate([a * ops.sigmoid(b), c], axis=-1)

    def shuffle(self, x):
        x = layers.Dense(8, activation=self.act())(x)
        front = [-1, *x.shape[1:-1]]
        groups = self.pick(2, 4)
        y = ops.reshape(x, (*front, groups, 8 // groups))
        y = ops.swapaxes(y, -1, -2)
        return ops.reshape(y, (*front, 8))

    def moves(self, x):
        last = len(x.shape) - 1
        return self.pick(
            lambda: ops.flip(x, axis=-1),
            lambda: ops.tile(x, [1] * last + [2]),
            lambda: ops.repeat(x, 2, axis=-1),
            lambda: ops.roll(x, 1, axis=-1),
            lambda: ops.pad(x, [[0, 0]] * last + [[1, 2]]),
            lambda: ops.squeeze(ops.expand_dims(x, -2), -2),
            lambda: (
                ops.moveaxis(ops.stack([x, x * 0.5], 1), 1, 2)[:, :, 0]
                if last > 1
                else x
            ),
            lambda: ops.take(x, [0, 2], axis=-1),
            lambda: x[..., ::2],
        )()

    def shared(self, x):
        layer = layers.Dense(self.size(), activation=self.act())
        a = layers.Dense(5, activation=self.act())(x)
        b = layers.Dense(5)(x)
        return layer(a) + layer(b)

    def nested(self, x):
        y = keras.Input(x.shape[1:])
        z = layers.Dense(self.size(), activation=self.act())(y)
        inner = keras.Model(y, layers.Dense(x.shape[-1])(z))
        return inner(inner(x)) if self.flag() else inner(x) + inner(2.0 * x)

    def composite(self, x):
        return Block(self.size(), self.flag())(x)

    def position(self, x):
        values = self.random.normal(size=(1, *x.shape[1:]))
        return x + values.astype(keras.config.floatx())
