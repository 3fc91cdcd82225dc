"""What the tests of cases ask of a smaller model."""

import keras
import numpy as np

import tf_ssl


def noise(*shape, seed=0):
    """Normal noise, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def outputs(model, inputs):
    """Float64 arrays."""
    flat = keras.tree.flatten(model(inputs, training=False))
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")).astype(float)
        for x in flat
    ]


def difference(model, other, inputs) -> float:
    """Largest max|a - b| / max|a| of an output."""
    return max(
        np.abs(a - b).max() / np.abs(a).max()
        for a, b in zip(
            outputs(model, inputs), outputs(other, inputs), strict=True
        )
    )


def shrunk(model, inputs, tolerance=1e-5, **arguments):
    """The smaller model, which computes the same on these inputs."""
    small = tf_ssl.shrink(model, **arguments)
    assert difference(model, small, inputs) <= tolerance
    return small


def train(model, inputs):
    """One step of training, towards zeros."""
    targets = np.zeros_like(outputs(model, inputs)[0])
    model.compile("sgd", "mse")
    return model.fit(inputs, targets, verbose=0)
