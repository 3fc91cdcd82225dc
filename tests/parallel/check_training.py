"""Run by test_parallel.py in every worker: training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad import collectives

RANK, SIZE = tg.rank(), tg.size()
Sgd = keras.optimizers.SGD


def _gathered(value, name="check"):
    return collectives.allgather_object(value, name)


def _bytes(variables):
    return [keras.ops.convert_to_numpy(v).tobytes() for v in variables]


def _assert_same_on_all_workers(variables):
    mine = _bytes(variables)
    for other in _gathered(mine):
        assert other == mine


def _differs_between_workers(variables):
    return len(set(map(tuple, _gathered(_bytes(variables))))) == SIZE


def _cnn():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, name="logits"),
        ],
        name="cnn",
    )


def _data(examples=160):
    """Other images on every worker; the brightest row is the class."""
    rng = np.random.default_rng(RANK)
    labels = rng.integers(0, 10, size=examples)
    images = rng.normal(size=(examples, 12, 12, 1)).astype(np.float32)
    images[np.arange(examples), labels] += 2.0
    return images, labels


def _compile(model, optimizer, **kwargs):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        auto_scale_loss=False,
        **kwargs,
    )
    return model


def _callbacks():
    return [
        tg.callbacks.BroadcastVariables(),
        tg.callbacks.ReplicaCheck(),
        tg.callbacks.AverageStatistics(),
        tg.callbacks.MetricAverage(),
        tg.callbacks.ExchangeMetrics(),
    ]


@pytest.mark.parametrize(
    "options",
    [
        dict(compression=tg.TernGrad(), groups=3),
        dict(
            compression=tg.TernGrad(exempt=["*logits*"], bucket_size=32),
            gradient_accumulation_steps=2,
        ),
        dict(compression=tg.FP16(), groups=2),
    ],
    ids=["ternary", "ternary-accumulated", "fp16"],
)
def test_fit_keeps_replicas_equal_to_the_bit(options):
    # Unequal seeds: other weights before the broadcast, other dropout.
    keras.utils.set_random_seed(100 + RANK)
    model = _compile(
        _cnn(), tg.DistributedOptimizer(Sgd(0.05, momentum=0.9), **options)
    )
    assert _differs_between_workers(model.trainable_variables)
    images, labels = _data()

    history = model.fit(
        images,
        labels,
        batch_size=16,
        epochs=2,  # 20 steps
        verbose=0,
        validation_data=(images[:32], labels[:32]),
        callbacks=_callbacks(),
    ).history

    _assert_same_on_all_workers(
        model.trainable_variables + model.optimizer.variables
    )
    statistics = [model.get_layer("norm").moving_mean]
    _assert_same_on_all_workers(statistics)  # averaged at the epoch's end
    seeds = [v for v in model.non_trainable_variables if "seed" in v.path]
    assert seeds and _differs_between_workers(seeds)
    accumulation = options.get("gradient_accumulation_steps", 1)
    assert int(model.optimizer.exchange_step) == 20 // accumulation
    assert history["loss"][1] < history["loss"][0]
    for other in _gathered(history):
        assert other == history
    if isinstance(options["compression"], tg.TernGrad):
        assert 0.5 < history["zero_fraction"][-1] < 1.0
        assert 0.0 < history["saturation"][-1] < 0.1


def test_accumulation_equals_a_larger_batch():
    images, labels = _data(32)
    models = []
    for steps, batch_size in ((None, 32), (4, 8)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((12, 12, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        _compile(
            model,
            tg.DistributedOptimizer(
                Sgd(0.1), tg.NoCompression(), gradient_accumulation_steps=steps
            ),
        )
        model.fit(images, labels, batch_size, shuffle=False, verbose=0)
        models.append(model)
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    _assert_same_on_all_workers(models[1].trainable_variables)


@pytest.mark.parametrize(
    "compression, worker",
    [(tg.TernGrad(), r) for r in range(SIZE)] + [(tg.NoCompression(), 1)],
)
def test_nan_on_one_worker_under_mixed_precision(compression, worker):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        keras.utils.set_random_seed(0)
        model = _cnn()
        inner = keras.optimizers.LossScaleOptimizer(
            Sgd(0.05), initial_scale=64.0
        )
        _compile(model, tg.DistributedOptimizer(inner, compression))
        images, labels = _data(32)
        before = [w.copy() for w in model.get_weights()]
        broken = images.copy()
        if RANK == worker:
            broken[0, 0, 0, 0] = np.nan
        model.train_on_batch(broken, labels)
        assert float(inner.dynamic_scale) == 32.0
        for variable, value in zip(model.weights, before, strict=True):
            if variable.trainable:
                np.testing.assert_array_equal(variable, value)
        # Moving statistics of that worker took the NaN: put them back.
        model.set_weights(before)
        for _ in range(3):
            model.train_on_batch(images, labels)
        assert float(inner.dynamic_scale) == 32.0
        assert int(inner.iterations) == 3
        _assert_same_on_all_workers(
            model.trainable_variables + model.optimizer.variables
        )
        assert np.isfinite(model.trainable_variables[0]).all()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("in_graph", [True, False])
def test_two_optimizers_in_one_step(in_graph):
    # As for a GAN; gradients known, so that mixed names would show.
    variables = [keras.Variable(np.zeros(50, "float32")) for _ in range(2)]
    optimizers = [
        tg.DistributedOptimizer(Sgd(1.0), tg.TernGrad(clip_factor=None))
        for _ in variables
    ]

    def step():
        for i in range(2):
            optimizers[i].apply([tf.fill([50], i + 1.0)], [variables[i]])

    if in_graph:
        step = tf.function(step)
    for _ in range(3):
        step()
    np.testing.assert_array_equal(variables[0], np.full(50, -3.0))
    np.testing.assert_array_equal(variables[1], np.full(50, -6.0))


def test_process_set_of_the_optimizer():
    hvd = pytest.importorskip("horovod.tensorflow")
    if SIZE < 3:
        pytest.skip("needs 3 workers")
    process_set = hvd.add_process_set([0, 2])
    try:
        variable = keras.Variable(np.zeros(5, "float32"))
        optimizer = tg.DistributedOptimizer(
            Sgd(1.0), tg.NoCompression(), process_set=process_set
        )
        assert optimizer.num_workers == 2
        optimizer.apply([tf.fill([5], float(RANK))], [variable])
        np.testing.assert_array_equal(variable, np.full(5, -1.0))
    finally:
        hvd.remove_process_set(process_set)


def _tape_step(model, optimizer, compression, op):
    import horovod.tensorflow as hvd

    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_fn(labels, model(images, training=True))
        tape = hvd.DistributedGradientTape(tape, compression=compression, op=op)
        sources = [v.value for v in model.trainable_variables]
        gradients = tape.gradient(loss, sources)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return step


def _lenet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(20, 5),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(50, 5),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(500, "relu"),
            keras.layers.Dense(10),
        ]
    )


def _digits():
    """A bright row stands for the class."""
    rng = np.random.default_rng(RANK)
    labels = rng.integers(0, 10, size=16)
    images = rng.uniform(0, 0.3, size=(16, 28, 28, 1)).astype(np.float32)
    images[np.arange(16), 2 * labels + 4] += 0.7
    return tf.constant(images), tf.constant(labels)


@pytest.mark.skipif(SIZE > 2, reason="long; two workers show it")
def test_horovods_tape_trains_lenet():
    hvd = pytest.importorskip("horovod.tensorflow")
    keras.utils.set_random_seed(0)
    model = _lenet()
    step = _tape_step(
        model, Sgd(0.02, momentum=0.9), tg.Compression.terngrad, hvd.Sum
    )
    losses = [float(step(*_digits())) for _ in range(25)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    _assert_same_on_all_workers(model.trainable_variables)


def test_horovods_tape_returns_the_average():
    hvd = pytest.importorskip("horovod.tensorflow")
    compression = tg.HorovodTernGrad(tg.TernGrad(clip_factor=None))
    g = tf.fill([50], 2.0 if RANK == 0 else -2.0)
    average = hvd.allreduce(g, compression=compression, op=hvd.Sum, name="avg")
    # |g| = s everywhere: nothing is random.
    expected = 2.0 * (2 - SIZE) / SIZE
    np.testing.assert_allclose(average, np.full(50, expected), rtol=1e-6)


@pytest.mark.parametrize("in_graph", [False, True])
def test_op_average_is_refused_on_all_workers(in_graph):
    hvd = pytest.importorskip("horovod.tensorflow")

    def average():
        return hvd.allreduce(
            tf.ones([50]),
            compression=tg.Compression.terngrad,
            op=hvd.Average,
            name=f"average.{in_graph}",
        )

    if in_graph:
        average = tf.function(average)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="The payload is not the sum over all workers: its guard word is ",
    ):
        average()
    collectives.barrier()


def _tiny():
    keras.utils.set_random_seed(RANK)
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, name="dense")], name="tiny"
    )
    model.compile(
        tg.DistributedOptimizer(Sgd(0.1, momentum=0.9), tg.TernGrad()),
        "mse",
        jit_compile=False,
    )
    return model


def _begin(callback, model, steps=4):
    callback.set_model(model)
    callback.set_params({"steps": steps})
    callback.on_train_begin()


def test_broadcast_copies_all_but_seed_generators():
    keras.utils.set_random_seed(RANK)
    model = _compile(_cnn(), tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad()))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.exchange_step.assign(10 + RANK)
    model.get_layer("norm").moving_mean.assign([float(RANK)] * 4)
    weights = model.get_weights()
    root = SIZE - 1
    expected = _gathered(weights)[root]

    _begin(tg.callbacks.BroadcastVariables(root=root), model)

    for variable, mine, roots in zip(
        model.weights, weights, expected, strict=True
    ):
        own = "seed" in variable.path
        np.testing.assert_array_equal(variable, mine if own else roots)
    assert int(model.optimizer.exchange_step) == 10 + root
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


def test_broadcast_can_leave_statistics_alone():
    model = _compile(_cnn(), tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad()))
    mean = model.get_layer("norm").moving_mean
    mean.assign([float(RANK)] * 4)
    _begin(tg.callbacks.BroadcastVariables(statistics=False), model)
    np.testing.assert_array_equal(mean, [RANK] * 4)
    _assert_same_on_all_workers(model.trainable_variables)


@pytest.mark.parametrize("which", ["weight", "momentum", "step"])
def test_replica_check_names_the_variable(which):
    model = _tiny()
    _begin(tg.callbacks.BroadcastVariables(), model)
    check = tg.callbacks.ReplicaCheck()
    _begin(check, model)
    check.on_epoch_end(0)

    variable = {
        "weight": model.trainable_variables[1],
        "momentum": model.optimizer.inner_optimizer.variables[-1],
        "step": model.optimizer.exchange_step,
    }[which]
    if RANK == SIZE - 1:
        variable.assign_add(keras.ops.ones_like(variable))
    with pytest.raises(RuntimeError) as error:
        check.on_epoch_end(2)
    assert str(error.value) == (
        f"The replicas differ after epoch 3: variable {variable.path} of "
        f"worker {SIZE - 1} is not that of worker 0. Every change of weights "
        "must be the same on all workers: look for updates outside the "
        "optimizer, for other data types or for another number of steps."
    )


def _disagreement(problem, name):
    keras.utils.set_random_seed(0)
    odd = RANK == SIZE - 1
    units = 4 if odd and problem == "model" else 3
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(units, name="dense")],
        name="tiny",
    )
    compression = tg.TernGrad(
        clip_factor=2.0 if odd and problem == "compression" else 2.5,
        seed=RANK,  # may differ
    )
    optimizer = Sgd(0.1)
    if odd and problem == "optimizer":
        optimizer = keras.optimizers.Adam(0.1)
    model.compile(
        tg.DistributedOptimizer(optimizer, compression),
        "mse",
        jit_compile=False,
    )
    steps = 5 if odd and problem == "steps" else 4
    _begin(tg.callbacks.BroadcastVariables(), model, steps)


@pytest.mark.parametrize(
    "problem, line",
    [
        (
            "model",
            "trainable variables: ('tiny/dense/kernel', (2, 3), 'float32') != "
            "('tiny/dense/kernel', (2, 4), 'float32')",
        ),
        ("compression", "compression: clip_factor=2.5 != clip_factor=2.0"),
        (
            "optimizer",
            "optimizer: classes=['DistributedOptimizer', 'SGD'] != "
            "classes=['DistributedOptimizer', 'Adam']",
        ),
        ("steps", "steps per epoch: 4 != 5"),
    ],
)
def test_disagreement_stops_all_workers(problem, line):
    with pytest.raises(RuntimeError) as error:
        _disagreement(problem, line)
    assert str(error.value) == (
        "The workers do not agree. Start all with the same program, flags and "
        f"versions.\n  {line} (worker 0, worker {SIZE - 1})"
    )


def test_agreement_of_equal_workers():
    _disagreement(None, None)


def test_average_statistics():
    model = _compile(_cnn(), tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad()))
    norm = model.get_layer("norm")
    callback = tg.callbacks.AverageStatistics()
    callback.set_model(model)
    for average in (
        callback.on_test_begin,
        lambda: callback.on_epoch_end(0),
    ):
        norm.moving_mean.assign([1.0 + RANK] * 4)
        norm.moving_variance.assign([2.0 * RANK] * 4)
        average()
        np.testing.assert_allclose(norm.moving_mean, [(1 + SIZE) / 2] * 4)
        np.testing.assert_allclose(norm.moving_variance, [SIZE - 1.0] * 4)


def test_metric_average():
    logs = {"loss": 1.0 + RANK, "val_loss": 10.0 * RANK}
    callback = tg.callbacks.MetricAverage()
    callback.on_epoch_end(0, logs)
    assert logs == {
        "loss": pytest.approx((1 + SIZE) / 2),
        "val_loss": pytest.approx(10.0 * (SIZE - 1) / 2),
    }
    logs = {"loss": 1.0 + RANK, "val_loss": float(RANK)}
    tg.callbacks.MetricAverage(validation_examples=1 + RANK).on_epoch_end(
        0, logs
    )
    weights = np.arange(1, SIZE + 1)
    assert logs == {
        "loss": pytest.approx((1 + SIZE) / 2),
        "val_loss": pytest.approx(np.average(range(SIZE), weights=weights)),
    }


def test_exchange_metrics_count_all_workers():
    variable = keras.Variable(np.zeros(1000, "float32"), name="w")
    optimizer = tg.DistributedOptimizer(
        Sgd(1.0), tg.TernGrad(clip_factor=None, exchange="allreduce")
    )
    optimizer.build([variable])
    # Worker r sends r + 1 elements, all of them for sure.
    g = np.where(np.arange(1000) <= RANK, 1.0, 0.0)
    optimizer.apply([tf.constant(g, tf.float32)], [variable])

    class Model:
        pass

    callback = tg.callbacks.ExchangeMetrics()
    model = Model()
    model.optimizer = optimizer
    callback._model = model
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs["zero_fraction"] == pytest.approx(1 - (SIZE + 1) / 2000)
    assert logs["saturation"] == 0.0
    digits = {2: 27, 3: 22}[SIZE]
    words = -(-1000 // digits) + 1
    # The scaler, and two numbers that say that workers agree.
    bits = 2 * (SIZE - 1) / SIZE * (64 * words + 3 * 32)
    assert logs["bits_per_element"] == pytest.approx(bits / 1000)
