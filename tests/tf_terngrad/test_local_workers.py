"""Virtual workers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg


def _loss(model, batch):
    x, y = batch["x"], batch["y"]
    return tf.reduce_mean((model(x) - y) ** 2)


def _setup(examples=12):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    rng = np.random.default_rng(0)
    batch = {
        "x": tf.constant(rng.normal(size=(examples, 3)), tf.float32),
        "y": tf.constant(rng.normal(size=(examples, 2)), tf.float32),
    }
    return model, batch


@pytest.mark.parametrize("num_workers", [1, 2, 3, 12])
def test_average_of_parts_is_the_gradient_of_the_batch(num_workers):
    model, batch = _setup()
    workers = tg.LocalWorkers(num_workers)
    gradients = workers.gradients(_loss, model, batch)
    assert len(gradients) == num_workers
    averages = tg.exchange(
        gradients,
        model.trainable_variables,
        tg.NoCompression(),
        workers=workers,
    )
    with tf.GradientTape() as tape:
        loss = _loss(model, batch)
    expected = tape.gradient(loss, model.trainable_variables)
    for average, whole in zip(averages, expected, strict=True):
        np.testing.assert_allclose(average, whole, rtol=1e-5, atol=1e-6)


def test_parts_are_consecutive():
    model, batch = _setup()
    first, second = tg.LocalWorkers(2).gradients(_loss, model, batch)
    half = {key: value[:6] for key, value in batch.items()}
    (alone,) = tg.LocalWorkers(1).gradients(_loss, model, half)
    for a, b in zip(first, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0].numpy() != second[0].numpy()).any()


def test_trains_in_a_tf_function():
    model, batch = _setup()
    workers = tg.LocalWorkers(4)
    compression = tg.TernGrad()
    optimizer = keras.optimizers.SGD(0.05)

    @tf.function
    def step():
        gradients = workers.gradients(_loss, model, batch)
        averages = tg.exchange(
            gradients,
            model.trainable_variables,
            compression,
            workers=workers,
        )
        optimizer.apply(averages, model.trainable_variables)
        return _loss(model, batch)

    losses = [float(step()) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]


def test_batch_that_does_not_divide():
    model, batch = _setup(10)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tg.LocalWorkers(3).gradients(_loss, model, batch)


def test_tape_averages_over_one_worker():
    variable = tf.Variable([1.0, 2.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable**2)
    tape = tg.DistributedGradientTape(
        tape, tg.TernGrad(clip_factor=None, bucket_size=1)
    )
    (gradient,) = tape.gradient(loss, [variable])
    np.testing.assert_array_equal(gradient, [2.0, 4.0])
