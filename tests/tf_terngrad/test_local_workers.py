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


class Penalized(keras.Model):
    """One whose call takes no `training`, and whose loss has a penalty."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2, activity_regularizer="l2")

    def call(self, x):
        return self.dense(x)


def _compiled(model, num_workers, compression=None, **kwargs):
    keras.utils.set_random_seed(1)
    workers = num_workers and tg.LocalWorkers(num_workers)
    model.compile(
        tg.DistributedOptimizer(
            keras.optimizers.SGD(0.1, momentum=0.9),
            compression or tg.NoCompression(),
            workers=workers,
            **kwargs,
        ),
        "mse",
        metrics=["mae"],
        jit_compile=False,
        auto_scale_loss=False,
    )
    if workers:
        workers.attach(model)
    return model


def _fit(model, **kwargs):
    _, batch = _setup(examples=24)
    return model.fit(
        batch["x"],
        batch["y"],
        batch_size=12,
        epochs=2,
        shuffle=False,
        verbose=0,
        **kwargs,
    ).history


@pytest.mark.parametrize("make", [lambda: _setup()[0], Penalized])
@pytest.mark.parametrize("num_workers", [1, 2, 12])
def test_fit_in_float_equals_fit_of_one_worker(make, num_workers):
    histories, models = [], []
    for n in (None, num_workers):
        keras.utils.set_random_seed(0)
        models.append(_compiled(make(), n))
        histories.append(_fit(models[-1], sample_weight=np.arange(24.0)))
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(groups=2),
        dict(gradient_accumulation_steps=2),
    ],
    ids=["plain", "groups", "accumulated"],
)
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_fit_equals_a_loop_with_exchange(options, run_eagerly):
    compression = tg.TernGrad(seed=5)
    model, batch = _setup(examples=24)
    start = model.get_weights()
    model = _compiled(model, 3, compression, **options)
    model.run_eagerly = run_eagerly
    _fit(model)
    trained = model.get_weights()
    accumulation = options.get("gradient_accumulation_steps", 1)
    assert int(model.optimizer.exchange_step) == 4 // accumulation

    model.set_weights(start)
    workers = tg.LocalWorkers(3)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    lists, number = [], 0
    for step in range(4):
        begin = step % 2 * 12
        part = {k: v[begin : begin + 12] for k, v in batch.items()}
        lists.append(workers.gradients(_loss, model, part))
        if len(lists) < accumulation:
            continue
        local = [
            [tf.add_n(g) / accumulation for g in zip(*micro, strict=True)]
            for micro in zip(*lists, strict=True)
        ]
        averages = tg.exchange(
            local,
            model.trainable_variables,
            compression,
            step=tf.constant(number, tf.int64),
            workers=workers,
        )
        optimizer.apply(averages, model.trainable_variables)
        lists, number = [], number + 1
    for a, b in zip(trained, model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_number_of_workers_and_bits():
    model = _compiled(_setup()[0], 4, tg.TernGrad())
    model.optimizer.build(model.trainable_variables)
    assert model.optimizer.num_workers == 4
    one = tg.TernGrad().bits_sent([6, 2], ["a", "b"], 4)
    assert model.optimizer.bits_per_element() == one / 8


def test_every_worker_has_its_own_dropout_and_updates_statistics():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((100,)),
            keras.layers.BatchNormalization(momentum=0.5, center=False),
            keras.layers.Dropout(0.5, seed=3),
        ]
    )
    workers = tg.LocalWorkers(2)
    model.compile(
        tg.DistributedOptimizer(
            keras.optimizers.SGD(0.0), tg.NoCompression(), workers=workers
        ),
        "mse",
        jit_compile=False,
        auto_scale_loss=False,
    )
    workers.attach(model)
    outputs = []
    call = model.call

    def recording(*args, **kwargs):
        y = call(*args, **kwargs)
        tf.py_function(lambda v: outputs.append(v.numpy()), [y], [])
        return y

    model.call = recording
    x = np.concatenate([np.full((1, 100), 1.0), np.full((1, 100), 3.0)])
    x = np.repeat(x, 2, axis=0) + [[-1.0] * 100, [1.0] * 100] * 2
    model.fit(x, x, batch_size=4, verbose=0, shuffle=False)
    first, second = outputs
    assert ((first == 0) != (second == 0)).any()
    # 0 -> (0 + 1) / 2 -> (1/2 + 3) / 2, one half a part.
    np.testing.assert_allclose(model.layers[0].moving_mean, [1.75] * 100)


def test_loss_scale():
    model, _ = _setup()
    workers = tg.LocalWorkers(2)
    model.compile(
        tg.DistributedOptimizer(
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=8.0
            ),
            tg.NoCompression(),
            workers=workers,
        ),
        "mse",
        jit_compile=False,
        auto_scale_loss=False,
    )
    workers.attach(model)
    _fit(model)
    plain = _compiled(_setup()[0], 2)
    _fit(plain)
    for a, b in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_config():
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(), tg.TernGrad(), workers=tg.LocalWorkers(3)
    )
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert copy.workers.num_workers == 3
    assert copy.get_config() == optimizer.get_config()


def test_keras_file(tmp_path):
    model = _compiled(_setup()[0], 2)
    _fit(model)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    copy.optimizer.workers.attach(copy)
    for each in (model, copy):
        _fit(each)
    for a, b in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_type_of_workers():
    with pytest.raises(TypeError) as error:
        tg.DistributedOptimizer(
            keras.optimizers.SGD(), tg.TernGrad(), workers=4
        )
    assert str(error.value) == (
        "Invalid type for argument workers. Expected tg.LocalWorkers(n) or "
        "None. Received: workers=4"
    )


def test_process_set_and_local_workers():
    with pytest.raises(ValueError) as error:
        tg.DistributedOptimizer(
            keras.optimizers.SGD(),
            tg.TernGrad(),
            process_set="some",
            workers=tg.LocalWorkers(4),
        )
    assert str(error.value) == (
        "Invalid value for argument workers. Expected None where there is a "
        "process_set. Received: workers=LocalWorkers(4)"
    )


def test_fit_without_attach():
    model = _compiled(_setup()[0], None)
    model.optimizer.workers = tg.LocalWorkers(2)
    with pytest.raises(ValueError) as error:
        _fit(model)
    assert (
        "Invalid value for argument grads. Expected one list for each of 2 "
        "local workers: call workers.attach(model) before model.fit, or pass "
        "what workers.gradients returns. Received: 0 lists, 2 other objects"
    ) in str(error.value)


def test_attach_to_another_optimizer():
    model = _compiled(_setup()[0], 2)
    with pytest.raises(ValueError) as error:
        tg.LocalWorkers(2).attach(model)
    assert str(error.value) == (
        "Invalid value for argument model. Expected a model compiled with "
        "tg.DistributedOptimizer(..., workers=workers) of these workers. "
        f"Received: optimizer={model.optimizer!r}"
    )


def test_attach_to_a_model_with_its_own_train_step():
    class Own(Penalized):
        def train_step(self, data):
            return {}

    with pytest.raises(ValueError) as error:
        tg.LocalWorkers(2).attach(Own())
    assert str(error.value) == (
        "Invalid value for argument model. Expected a model with Keras' own "
        "train_step, which attach replaces. Received: Own, which has another. "
        "Call workers.gradients and optimizer.apply in it."
    )


def test_overwritten_variables_are_refused():
    model = _compiled(_setup()[0], 2)
    model.trainable_variables[1].overwrite_with_gradient = True
    with pytest.raises(ValueError) as error:
        _fit(model)
    assert (
        "DistributedOptimizer with local workers cannot train variables that "
        "are overwritten by their gradient (float8). Use real workers."
    ) in str(error.value)
