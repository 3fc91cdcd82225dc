"""Stochastic depth under other names."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tf_ssl.graph.dropped_rows import as_dropout


class Custom(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        return self.function(x, self.seed) if training else x


def rows(x, seed, rate=0.2, rank=None):
    shape = (ops.shape(x)[0], *[1] * ((rank or len(x.shape)) - 1))
    kept = keras.random.uniform(shape, seed=seed) >= rate
    return ops.cast(kept, x.dtype) * x / (1 - rate)


@pytest.mark.parametrize("shape", [(None, 4), (None, None, 4), (2, 3, 3, 4)])
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_found(shape, rate):
    layer = Custom(lambda x, seed: rows(x, seed, rate))
    state = layer.seed.state.numpy()
    made = as_dropout(layer, shape, "drop")
    assert (made.name, made.rate) == ("drop", rate)
    assert made.noise_shape == (None, *[1] * (len(shape) - 1))
    np.testing.assert_array_equal(layer.seed.state.numpy(), state)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, seed: keras.random.dropout(x, 0.2, seed=seed),
        lambda x, seed: rows(x, seed) + 1,
        lambda x, seed: rows(x, seed) * 0.8,  # not scaled
        lambda x, seed: x * 2,  # none is dropped
        lambda x, seed: ops.zeros_like(x),  # all are
        lambda x, seed: x,
        lambda x, seed: x + keras.random.normal(ops.shape(x), seed=seed),
        lambda x, seed: x[:1],
        lambda x, seed: 1 / 0,
        # It looks at what it is given.
        lambda x, seed: ops.where(x > 1, 0.0, rows(x, seed)),
        lambda x, seed: rows(x, seed) * ops.sign(x),
        lambda x, seed: rows(x, seed) * x,
    ],
)
def test_others_are_not_taken_for_it(function):
    assert as_dropout(Custom(function), (None, 4), "drop") is None


def test_another_inference():
    class Halves(Custom):
        def call(self, x, training=None):
            return rows(x, self.seed) if training else x / 2

    assert as_dropout(Halves(None), (None, 4), "drop") is None


def test_types():
    layer = Custom(rows, dtype="mixed_float16")
    assert as_dropout(layer, (None, 4), "d").compute_dtype == "float16"
