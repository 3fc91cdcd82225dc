"""Tests of tf_ssl/penalties/optimizers/adaptive_force.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.penalties.force_regularizer import force
from tf_ssl.penalties.optimizers.adaptive_force import AdaptiveForce


def small_model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(5, 3, name="conv")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_step_is_the_formula(norm):
    model = small_model()
    optimizer = AdaptiveForce(
        keras.optimizers.SGD(0.5), 0.2, "conv/kernel", norm
    )
    random = np.random.default_rng(0)
    grads = [
        tf.constant(random.normal(size=v.shape), tf.float32)
        for v in model.trainable_variables
    ]
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.apply(grads, model.trainable_variables)
    forces = force(tf.constant(before[0]), norm).numpy()
    for i, (old, new, grad) in enumerate(
        zip(before, model.trainable_variables, grads, strict=True)
    ):
        grad = grad.numpy()
        if i == 0:
            scale = np.linalg.norm(grad) / np.linalg.norm(forces)
            grad = grad - 0.2 * scale * forces
        np.testing.assert_allclose(
            new.numpy(), old - 0.5 * grad, rtol=1e-5, atol=1e-6
        )


def test_no_forces_no_change_and_none_gradients():
    kernel = keras.Variable(np.ones((3, 2), np.float32), name="kernel")
    other = keras.Variable(np.ones((3, 2), np.float32), name="other_kernel")
    optimizer = AdaptiveForce(keras.optimizers.SGD(1.0), 0.5)
    optimizer.apply([tf.ones((3, 2)), None], [kernel, other])
    np.testing.assert_array_equal(kernel.numpy(), 0)
    np.testing.assert_array_equal(other.numpy(), 1)


def test_trains_under_loss_scaling_and_saves(tmp_path):
    model = small_model()
    optimizer = keras.optimizers.LossScaleOptimizer(
        AdaptiveForce(keras.optimizers.Adam(0.01), 0.1)
    )
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images = np.random.default_rng(0).normal(size=(16, 6, 6, 2))
    labels = np.arange(16) % 3
    first = model.evaluate(images, labels, verbose=0)
    model.fit(images, labels, epochs=20, verbose=0)
    assert model.evaluate(images, labels, verbose=0) < 0.5 * first
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inner = loaded.optimizer.inner_optimizer
    assert inner.get_config()["ratio"] == 0.1
    assert int(inner.iterations.numpy()) == 20
    np.testing.assert_array_equal(
        inner.inner_optimizer.variables[2].numpy(),
        optimizer.inner_optimizer.inner_optimizer.variables[2].numpy(),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"ratio": -1},
            "Invalid value for argument ratio. Expected a finite number >= 0. "
            "Received: ratio=-1",
        ),
        (
            {"ratio": 1, "norm": 2},
            "Invalid value for argument norm. Expected one of {'l1', 'l2'}. "
            "Received: norm=2",
        ),
        (
            {"ratio": 1, "optimizer": "sgd"},
            "Invalid value for argument optimizer. Expected a "
            "keras.optimizers.Optimizer. Received: optimizer='sgd'",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        AdaptiveForce(**{"optimizer": keras.optimizers.SGD(), **arguments})
    assert str(error.value) == message


def test_pattern_that_matches_nothing():
    optimizer = AdaptiveForce(keras.optimizers.SGD(), 1.0, "conv9/kernel")
    with pytest.raises(ValueError) as error:
        optimizer.build(small_model().trainable_variables)
    assert str(error.value) == (
        "Invalid value for argument kernels. Expected patterns that match "
        "trained variables of two axes or more: conv/kernel, conv/bias, "
        "logits/kernel, logits/bias. Received: 'conv9/kernel', which matches "
        "none"
    )
