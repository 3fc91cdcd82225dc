"""Learn what a network can do without, remove it, and keep the outputs."""

import keras
import numpy as np
import pytest

import tf_ssl
import tf_terngrad as tg


@pytest.mark.parametrize(
    "inner, arguments",
    [
        (keras.optimizers.Adam(0.02), {"update": "proximal"}),
        # Under Adam every element moves by the learning rate: no small ones.
        (keras.optimizers.SGD(0.05), {"threshold": 1e-3}),
    ],
)
def test_hidden_units(inner, arguments):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input([12])
    x = keras.layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    structures = tf_ssl.find_structures(model)
    optimizer = tf_ssl.GroupLassoOptimizer(inner, structures, 3e-2, **arguments)
    # Both halves together; one worker here.
    model.compile(
        tg.DistributedOptimizer(optimizer, tg.NoCompression()),
        "mse",
        jit_compile=False,
    )
    x = np.random.default_rng(0).standard_normal([512, 12]).astype("float32")
    y = np.abs(x[:, :1]) + x[:, 1:2]
    model.fit(x, y, epochs=40, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.05  # variance of y: 1.4
    dead = int(structures["hidden/units"].dead().sum())
    assert dead >= 3
    small = tf_ssl.shrink(model)
    assert small.get_layer("hidden").units == 16 - dead
    np.testing.assert_allclose(
        small.predict(x, verbose=0),
        model.predict(x, verbose=0),
        rtol=1e-4,
        atol=1e-4,
    )
