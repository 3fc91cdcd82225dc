"""Layers of many kinds, built, with inputs for them."""

import keras
import numpy as np

L = keras.layers


def noise(*shape, seed=0):
    """Normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Scale(L.Layer):
    """Cannot be rebuilt from its config."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.by = lambda x: x * self.shift + self.factor  # reaches self

    def build(self, shape):
        """One number."""
        self.shift = self.add_weight(shape=(), initializer="ones", name="shift")

    def call(self, x):
        """By a function that reaches the layer."""
        return self.by(x)


class Lies(L.Dense):
    """Says too little in its config."""

    def get_config(self):
        """Of another size."""
        return {"units": 1, "name": self.name}


class Helper:
    """Holds a layer, and is none."""

    def __init__(self, layer):
        self.layer = layer


@keras.saving.register_keras_serializable("live_copy")
class Composite(L.Layer):
    """Layers in attributes, lists, dicts and helpers; some of them twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = L.Dense(4, name="first")
        self.again = self.first
        self.listed = [L.Dense(4, name=f"listed{i}") for i in range(2)]
        self.named = {"a": L.Dense(4, name="a"), "b": L.Dropout(0.5, seed=1)}
        self.pair = (L.BatchNormalization(), L.LeakyReLU(0.2))
        self.helper = Helper(self.listed[1])
        self.mean = keras.metrics.Mean(name="mean")

    def build(self, shape):
        """All inner layers, and a variable under two names."""
        for layer in [self.first, *self.listed, self.named["a"], self.pair[0]]:
            layer.build(shape)
        self.offset = self.add_weight(
            shape=(4,), initializer="ones", name="offset", trainable=False
        )
        self.alias = self.offset

    def call(self, x, training=None):
        """One after the other."""
        x = self.again(self.first(x))
        for layer in self.listed:
            x = layer(x)
        x = self.named["b"](self.named["a"](x), training=training)
        x = self.pair[1](self.pair[0](x, training=training))
        return self.helper.layer(x) + self.alias


class Models(L.Layer):
    """Holds Sequential, Functional and subclassed models."""

    def __init__(self):
        super().__init__()
        x = keras.Input((4,))
        h = L.Dense(4, activation="relu", name="hidden")(x)
        y = L.Add()([h * 2.0, L.Dense(4, name="out")(h)])
        self.encoder = keras.Model(x, h)
        self.whole = keras.Model(x, [y, h])
        self.chain = keras.Sequential([L.Dense(4), self.encoder])
        self.code = Code()

    def build(self, shape):
        """Models build themselves."""
        self.chain.build(shape)
        self.code.build(shape)

    def call(self, x, training=None):
        """The sum of all."""
        y, h = self.whole(x)
        return y + h + self.chain(x) + self.code(x, training=training)


class Code(keras.Model):
    """A model in Python code, compiled."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(4)
        self.compile("sgd", "mse", metrics=["mae"])

    def build(self, shape):
        """Its layer."""
        self.dense.build(shape)
        self.built = True

    def call(self, x, training=None):
        """As the layer."""
        return self.dense(x)


def adapted(layer, data):
    """A preprocessing layer after adapt."""
    layer.adapt(data)
    return layer


def called(layer, *inputs):
    """Built by a call, which moves its states."""
    layer(*inputs)
    return layer


def quantized(mode):
    """A Dense layer in fewer bits."""
    layer = called(L.Dense(8), noise(2, 4))
    layer.quantize(mode)
    return layer


def lora():
    """Dense with a trained low rank update."""
    layer = called(L.Dense(8), noise(2, 4))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(noise(2, 8))
    return layer


def half_frozen():
    """Trainable, one of its layers not."""
    layer = called(Composite(), noise(2, 4))
    layer.listed[0].trainable = False
    return layer


def frozen():
    """Not trainable."""
    layer = L.Dense(3, trainable=False)
    return called(layer, noise(2, 4))


def stateful():
    """Two steps into a sequence of sequences."""
    layer = L.LSTM(3, stateful=True)
    layer(noise(2, 5, 4, seed=1))
    return layer


def doubled(x):
    """A function without a registered name."""
    return 2.0 * x


def with_functions():
    """Functions in all places that take some."""
    return L.Dense(
        3,
        activation=lambda x: x * 0.5,
        kernel_initializer=lambda shape, dtype=None: keras.random.normal(
            shape, dtype=dtype
        ),
        kernel_regularizer=lambda w: 0.1 * keras.ops.sum(w * w),
        bias_constraint=lambda w: w,
    )


IMAGE = (2, 8, 8, 3)
SERIES = (2, 5, 4)
WORDS = np.array(["a b", "c a"])
NUMBERS = np.array([[5, 9], [2, 7]])

# name -> (the layer, its input, whether it can be saved)
CASES = {
    "dense": (lambda: L.Dense(3, activation="relu"), noise(2, 4), True),
    "functions": (with_functions, noise(2, 4), False),
    "lambda": (lambda: L.Lambda(lambda x: x * 2.0), noise(2, 4), False),
    "without config": (lambda: Scale(np.float32(2.0)), noise(2, 4), False),
    "wrong config": (lambda: Lies(5), noise(2, 4), False),
    "prelu inside": (
        lambda: called(L.Dense(3, activation=L.PReLU()), noise(2, 4)),
        noise(2, 4),
        True,
    ),
    "frozen": (frozen, noise(2, 4), True),
    "half frozen": (half_frozen, noise(2, 4), True),
    "composite": (Composite, noise(2, 4), True),
    "models": (Models, noise(2, 4), False),
    "float16": (
        lambda: L.Dense(3, dtype="mixed_float16"),
        noise(2, 4),
        True,
    ),
    "bfloat16": (lambda: L.Dense(3, dtype="bfloat16"), noise(2, 4), True),
    "int8": (lambda: quantized("int8"), noise(2, 4), True),
    "int4": (lambda: quantized("int4"), noise(2, 4), True),
    "float8": (lambda: quantized("float8"), noise(2, 4), True),
    "lora": (lora, noise(2, 4), False),
    "dropout": (lambda: L.Dropout(0.5, seed=3), noise(2, 4), True),
    "noise": (lambda: L.GaussianNoise(0.5, seed=3), noise(2, 4), True),
    "conv": (lambda: L.Conv2D(4, 3, groups=1), noise(*IMAGE), True),
    "separable": (lambda: L.SeparableConv2D(4, 3), noise(*IMAGE), True),
    "transposed": (lambda: L.Conv2DTranspose(4, 3), noise(*IMAGE), True),
    "batch": (L.BatchNormalization, noise(*IMAGE), True),
    "group norm": (lambda: L.GroupNormalization(3), noise(*IMAGE), True),
    "spectral": (
        lambda: L.SpectralNormalization(L.Conv2D(4, 3)),
        noise(*IMAGE),
        True,
    ),
    "augmentation": (
        lambda: L.RandomFlip("horizontal", seed=2),
        noise(*IMAGE),
        True,
    ),
    "embedding": (lambda: L.Embedding(10, 4), NUMBERS, True),
    "einsum": (
        lambda: L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"),
        noise(*SERIES),
        True,
    ),
    "attention": (
        lambda: L.MultiHeadAttention(2, 3, dropout=0.2, seed=1),
        [noise(*SERIES), noise(*SERIES, seed=1)],
        True,
    ),
    "grouped attention": (
        lambda: L.GroupQueryAttention(3, 4, 2),
        [noise(*SERIES), noise(*SERIES, seed=1)],
        True,
    ),
    "lstm": (lambda: L.LSTM(3, dropout=0.3, seed=1), noise(*SERIES), True),
    "stateful": (stateful, noise(*SERIES), True),
    "gru": (lambda: L.GRU(3, return_sequences=True), noise(*SERIES), True),
    "cells": (
        lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)]),
        noise(*SERIES),
        True,
    ),
    "both ways": (lambda: L.Bidirectional(L.LSTM(3)), noise(*SERIES), True),
    "distributed": (
        lambda: L.TimeDistributed(L.Dense(3)),
        noise(*SERIES),
        True,
    ),
    "conv lstm": (
        lambda: L.ConvLSTM2D(2, 3, seed=1),
        noise(2, 3, 6, 6, 2),
        True,
    ),
    "adapted": (
        lambda: adapted(L.Normalization(), 3 * noise(9, 4) + 2),
        noise(2, 4),
        True,
    ),
    "given mean": (
        lambda: L.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0] * 4),
        noise(2, 4),
        True,
    ),
    "buckets": (
        lambda: adapted(L.Discretization(num_bins=3), noise(9, 2)),
        noise(2, 2),
        True,
    ),
    "integers": (
        lambda: adapted(L.IntegerLookup(), NUMBERS),
        NUMBERS,
        True,
    ),
    "strings": (
        lambda: adapted(L.StringLookup(), WORDS),
        WORDS,
        True,
    ),
    "text": (
        lambda: adapted(L.TextVectorization(), WORDS),
        WORDS,
        True,
    ),
    "hashed": (lambda: L.Hashing(5), NUMBERS, True),
    "categories": (lambda: L.CategoryEncoding(10), NUMBERS, True),
}
