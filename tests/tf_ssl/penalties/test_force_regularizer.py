"""Tests of tf_ssl/penalties/force_regularizer.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.penalties.force_regularizer import ForceRegularizer, force


def reference(kernel, norm):
    """Value and dW of the paper, filter by filter, pair by pair."""
    filters = kernel.astype(np.float64).reshape(-1, kernel.shape[-1]).T
    value, forces = 0.0, np.zeros_like(filters)
    for i, own in enumerate(filters):
        length = np.linalg.norm(own)
        if length <= 1e-4:
            continue
        w_i = own / length
        for j, other in enumerate(filters):
            other_length = np.linalg.norm(other)
            if i == j or other_length <= 1e-4:
                continue
            difference = other / other_length - w_i
            distance = np.linalg.norm(difference)
            if distance <= 1e-4:
                continue
            if norm == "l2":
                value += 0.5 * distance**2
            else:
                value += distance
                difference = difference / distance
            forces[i] += length * (difference - (difference @ w_i) * w_i)
    return value, forces.T.reshape(kernel.shape)


def awkward_kernel(shape, dtype="float32"):
    """With two equal filters, a parallel one, a zero and a tiny one."""
    kernel = np.random.default_rng(3).normal(size=shape).astype(dtype)
    kernel[..., 1] = kernel[..., 0]
    kernel[..., 2] = 2 * kernel[..., 0]
    kernel[..., 3] = 0
    kernel[..., 4] = 1e-6
    return kernel


def gradient_of(regularizer, kernel):
    kernel = tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = regularizer(kernel)
    return float(value), tape.gradient(value, kernel).numpy()


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("shape", [(7, 9), (4, 3, 8), (3, 3, 4, 11)])
def test_value_and_gradient_are_the_papers(norm, shape):
    kernel = awkward_kernel(shape)
    expected, forces = reference(kernel, norm)
    value, gradient = gradient_of(ForceRegularizer(0.01, norm), kernel)
    np.testing.assert_allclose(value, 0.01 * expected, rtol=1e-6)
    np.testing.assert_allclose(
        gradient, -0.01 * forces, rtol=1e-5, atol=1e-6 * np.abs(forces).max()
    )


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_forces_are_tangent_and_keep_length(norm):
    kernel = awkward_kernel((3, 3, 5, 12), "float64")
    forces = force(tf.constant(kernel), norm).numpy()
    products = (forces * kernel).sum(axis=(0, 1, 2))
    scale = np.sqrt(
        (forces**2).sum(axis=(0, 1, 2)) * (kernel**2).sum((0, 1, 2))
    )
    assert scale.max() > 1
    np.testing.assert_array_less(np.abs(products), 1e-12 * scale + 1e-30)


def test_of_a_variable_in_eager_mode():
    kernel = keras.Variable(awkward_kernel((3, 8)))
    with tf.GradientTape() as tape:
        value = ForceRegularizer(0.5)(kernel)
    gradient = tape.gradient(value, kernel.value)
    expected, forces = reference(kernel.numpy(), "l1")
    np.testing.assert_allclose(float(value), 0.5 * expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, -0.5 * forces, rtol=1e-4, atol=1e-5)


def test_two_equal_filters_have_no_force_between_them():
    kernel = np.ones((4, 2), np.float32)
    value, gradient = gradient_of(ForceRegularizer(1.0), kernel)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_banks_do_not_attract_each_other(norm):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 8))
    both = force(tf.constant(kernel), norm, conv_groups=2).numpy()
    for bank in (slice(0, 4), slice(4, 8)):
        alone = reference(kernel[..., bank], norm)[1]
        np.testing.assert_allclose(both[..., bank], alone, rtol=1e-9)


def test_filters_come_together():
    kernel = tf.Variable(np.random.default_rng(1).normal(size=(6, 5)))
    lengths = np.linalg.norm(kernel.numpy(), axis=0)
    for _ in range(200):
        kernel.assign_add(0.01 * force(kernel, "l2"))
    units = kernel.numpy() / np.linalg.norm(kernel.numpy(), axis=0)
    assert (units.T @ units).min() > 0.99
    # Tangent steps lengthen filters a little, to second order.
    after = np.linalg.norm(kernel.numpy(), axis=0)
    np.testing.assert_allclose(after, lengths, rtol=0.05)


def test_mixed_precision_and_training():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(
        6, kernel_regularizer=ForceRegularizer(1.0), dtype="mixed_float16"
    )
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = reference(layer.kernel.numpy(), "l1")[0]
    model.fit(np.zeros((8, 4)), np.zeros((8, 6)), epochs=5, verbose=0)
    assert reference(layer.kernel.numpy(), "l1")[0] < 0.9 * before


def test_keras_file_round_trip(tmp_path):
    layer = keras.layers.Dense(
        4, kernel_regularizer=ForceRegularizer(0.25, "l2", conv_groups=2)
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    regularizer = loaded.layers[0].kernel_regularizer
    assert regularizer.get_config() == {
        "strength": 0.25,
        "norm": "l2",
        "conv_groups": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"strength": -1.0},
            "Invalid value for argument strength. Expected a finite number >= "
            "0. Received: strength=-1.0",
        ),
        (
            {"strength": 1.0, "norm": "l3"},
            "Invalid value for argument norm. Expected one of {'l1', 'l2'}. "
            "Received: norm='l3'",
        ),
        (
            {"strength": 1.0, "conv_groups": 0},
            "Invalid value for argument conv_groups. Expected an integer >= 1. "
            "Received: conv_groups=0",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        ForceRegularizer(**arguments)
    assert str(error.value) == message


def test_banks_that_do_not_divide_the_filters():
    with pytest.raises(ValueError) as error:
        ForceRegularizer(1.0, conv_groups=2)(np.ones((2, 3), np.float32))
    assert str(error.value) == (
        "Invalid value for argument conv_groups. Expected a divisor of the 3 "
        "filters. Received: conv_groups=2"
    )
