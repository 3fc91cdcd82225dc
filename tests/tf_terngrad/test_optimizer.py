"""DistributedOptimizer with one worker."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X @ RNG.normal(size=(6, 1)) > 0).astype(np.float32)

LossScale = keras.optimizers.LossScaleOptimizer
Sgd = keras.optimizers.SGD


def _model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="logits"),
        ],
        name="mlp",
    )


def _compile(model, optimizer, **kwargs):
    kwargs = {"jit_compile": False, "auto_scale_loss": False} | kwargs
    model.compile(
        optimizer,
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def _fit(model, epochs=1, batch_size=16, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        **kwargs,
    )


def _weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def _assert_equal(model, other, **kwargs):
    for a, b in zip(_weights(model), _weights(other), strict=True):
        np.testing.assert_allclose(a, b, **kwargs)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: Sgd(0.5),
        lambda: Sgd(0.1, momentum=0.9),
        lambda: keras.optimizers.Adam(0.02),
        lambda: keras.optimizers.AdamW(0.02),
        lambda: LossScale(Sgd(0.5)),
        lambda: LossScale(keras.optimizers.Adam(0.02)),
    ],
    ids=["sgd", "momentum", "adam", "adamw", "scale-sgd", "scale-adam"],
)
def test_trains(inner):
    model = _model()
    optimizer = tg.DistributedOptimizer(inner(), tg.TernGrad())
    loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_fn(Y, model(X, training=True))
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    losses = [float(step()) for _ in range(60)]
    assert losses[-1] < 0.8 * losses[0]
    assert int(optimizer.exchange_step) == int(optimizer.iterations) == 60


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_no_compression_equals_the_optimizer_alone(clip):
    plain = _compile(_model(), Sgd(0.5, momentum=0.9, **{clip: 0.01}))
    wrapped = _compile(
        _model(),
        tg.DistributedOptimizer(
            Sgd(0.5, momentum=0.9, **{clip: 0.01}), tg.NoCompression()
        ),
    )
    _fit(plain)
    _fit(wrapped)
    _assert_equal(plain, wrapped, rtol=1e-6)
    free = _compile(_model(), Sgd(0.5, momentum=0.9))
    _fit(free)
    assert any(
        (a != b).any()
        for a, b in zip(_weights(free), _weights(plain), strict=True)
    )


def test_clipping_acts_on_the_averaged_gradient():
    variable = keras.Variable(np.zeros(100), name="w")
    optimizer = tg.DistributedOptimizer(
        Sgd(1.0, clipnorm=1.0), tg.TernGrad(clip_factor=None)
    )
    optimizer.apply([tf.constant(RNG.normal(size=100), tf.float32)], [variable])
    # Ternary after clipping would leave any norm; clipped after it is 1.
    assert np.linalg.norm(variable) == pytest.approx(1.0, rel=1e-5)
    assert len(np.unique(np.abs(variable))) == 2


@pytest.mark.parametrize("groups", [2, 3, 9])
def test_groups_give_the_same_bits(groups):
    models = []
    for k in (1, groups):
        models.append(
            _compile(
                _model(),
                tg.DistributedOptimizer(Sgd(0.5), tg.TernGrad(), groups=k),
            )
        )
        _fit(models[-1])
    _assert_equal(*models, rtol=0)


@pytest.mark.parametrize("depth, from_inside", [(1, False), (2, True)])
def test_accumulation_equals_a_larger_batch(depth, from_inside):
    inside = dict(gradient_accumulation_steps=4) if from_inside else {}
    inner = Sgd(0.5, momentum=0.9, **inside)
    optimizer = tg.DistributedOptimizer(
        LossScale(inner, initial_scale=8.0) if depth == 2 else inner,
        tg.NoCompression(),
        gradient_accumulation_steps=None if from_inside else 4,
    )
    assert optimizer.gradient_accumulation_steps == 4
    assert inner.gradient_accumulation_steps is None
    small = _compile(_model(), optimizer)
    large = _compile(_model(), Sgd(0.5, momentum=0.9))
    _fit(small, epochs=3, batch_size=4)
    _fit(large, epochs=3, batch_size=16)
    _assert_equal(small, large, rtol=1e-4, atol=1e-6)
    assert int(optimizer.iterations) == int(optimizer.exchange_step) == 12


def test_accumulation_exchanges_every_kth_step_only():
    model = _compile(
        _model(),
        tg.DistributedOptimizer(
            Sgd(0.5), tg.TernGrad(), gradient_accumulation_steps=3
        ),
    )
    before = _weights(model)
    model.train_on_batch(X, Y)
    model.train_on_batch(X, Y)
    for a, b in zip(before, _weights(model), strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_on_batch(X, Y)
    assert int(model.optimizer.exchange_step) == 1
    assert (before[0] != _weights(model)[0]).any()


def test_accumulation_of_sparse_gradients():
    variable = keras.Variable(np.zeros((4, 2), np.float32), name="embeddings")
    optimizer = tg.DistributedOptimizer(
        Sgd(1.0), tg.NoCompression(), gradient_accumulation_steps=2
    )
    for rows in ([1, 1], [3]):
        gradient = tf.IndexedSlices(
            tf.ones([len(rows), 2]), tf.constant(rows), tf.constant([4, 2])
        )
        optimizer.apply([gradient], [variable])
    expected = -np.array([[0, 0], [1, 1], [0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(variable, expected)


@pytest.mark.parametrize("depth, accumulation", [(1, 3), (2, None)])
def test_keras_file_round_trip(tmp_path, accumulation, depth):
    def compiled():
        inner = keras.optimizers.Adam(0.01)
        return _compile(
            _model(),
            tg.DistributedOptimizer(
                LossScale(inner) if depth == 2 else inner,
                tg.TernGrad(clip_factor=3.0, exempt=["*/bias"], seed=4),
                groups=2,
                gradient_accumulation_steps=accumulation,
            ),
        )

    model = compiled()
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    optimizer = loaded.optimizer
    assert type(optimizer) is tg.DistributedOptimizer
    assert optimizer.get_config() == model.optimizer.get_config()
    assert optimizer.compression.exempt == ("*/bias",)
    assert optimizer.compression.seed == 4
    assert optimizer.groups == 2
    assert optimizer.gradient_accumulation_steps == accumulation
    assert int(optimizer.exchange_step) == (1 if accumulation else 4)
    for a, b in zip(
        model.optimizer.variables, optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    # Training goes on as if nothing had happened.
    _fit(model)
    _fit(loaded)
    _assert_equal(model, loaded, rtol=0)


def test_config_round_trip_without_a_file():
    optimizer = tg.DistributedOptimizer(
        LossScale(Sgd(0.25)), tg.FP16(), groups=3, name="mine"
    )
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == optimizer.get_config()
    assert copy.name == "mine"
    assert type(copy.compression) is tg.FP16
    assert float(copy.learning_rate) == 0.25


@pytest.mark.parametrize("depth", [1, 2])
def test_learning_rate_is_that_of_the_wrapped_optimizer(depth):
    inner = Sgd(0.5)
    optimizer = tg.DistributedOptimizer(
        LossScale(inner) if depth == 2 else inner, tg.NoCompression()
    )
    assert float(optimizer.learning_rate) == 0.5
    optimizer.learning_rate = 0.125
    assert float(inner.learning_rate) == 0.125
    model = _compile(_model(), optimizer)
    _fit(
        model,
        epochs=3,
        callbacks=[keras.callbacks.LearningRateScheduler(lambda e: 0.1 / 2**e)],
    )
    assert float(inner.learning_rate) == pytest.approx(0.025)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_delta=9e9)
    history = _fit(model, epochs=3, callbacks=[plateau])
    assert float(inner.learning_rate) < 0.025
    assert "learning_rate" in history.history


def test_schedule_counts_exchanges():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [3], [1.0, 0.0]
    )
    model = _compile(
        _model(),
        tg.DistributedOptimizer(
            Sgd(schedule), tg.NoCompression(), gradient_accumulation_steps=2
        ),
    )
    assert float(model.optimizer.learning_rate) == 1.0
    _fit(model, epochs=2)  # 8 batches, 4 exchanges
    assert float(model.optimizer.learning_rate) == 0.0


def test_exponential_moving_average():
    def compiled(wrap):
        inner = Sgd(0.5, use_ema=True, ema_momentum=0.5)
        if wrap:
            inner = tg.DistributedOptimizer(inner, tg.NoCompression())
        return _compile(_model(), inner)

    plain, wrapped = compiled(False), compiled(True)
    assert wrapped.optimizer.use_ema
    for model in (plain, wrapped):
        _fit(
            model,
            epochs=2,
            callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
        )
    _assert_equal(plain, wrapped, rtol=1e-5)
    plain.optimizer.finalize_variable_values(plain.trainable_variables)
    wrapped.optimizer.finalize_variable_values(wrapped.trainable_variables)
    _assert_equal(plain, wrapped, rtol=1e-5)


@pytest.mark.parametrize("accumulation", [None, 2])
def test_overwrite_with_gradient_variables_pass_through(accumulation):
    statistic = keras.Variable([1.0, 2.0], name="scale")
    statistic.overwrite_with_gradient = True
    weight = keras.Variable([1.0], name="weight")
    optimizer = tg.DistributedOptimizer(
        Sgd(1.0), tg.TernGrad(), gradient_accumulation_steps=accumulation
    )
    for value in (0.3, 0.7):
        optimizer.apply(
            [tf.constant([value, 0.5]), tf.constant([0.25])],
            [statistic, weight],
        )
    np.testing.assert_allclose(statistic, [0.7, 0.5])
    steps = 1 if accumulation else 2
    np.testing.assert_array_equal(weight, [1.0 - 0.25 * steps])


def test_xla_is_refused():
    model = _compile(
        _model(),
        tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad()),
        jit_compile=True,
    )
    with pytest.raises(ValueError) as error:
        model.train_on_batch(X, Y)
    assert (
        "DistributedOptimizer cannot run under XLA. Pass jit_compile=False to "
        "model.compile (Keras' default, jit_compile='auto', turns XLA on where "
        "there is a GPU): neither Horovod's ops nor the ternary ops have XLA "
        "kernels."
    ) in str(error.value)


def test_xla_is_refused_in_a_custom_loop():
    variable = keras.Variable([1.0], name="w")
    optimizer = tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad())
    optimizer.build([variable])

    @tf.function(jit_compile=True)
    def step():
        optimizer.apply([tf.ones([1])], [variable])

    with pytest.raises(ValueError, match="cannot run under XLA"):
        step()


NESTING = (
    "LossScaleOptimizer must stand inside DistributedOptimizer, not around it: "
    "otherwise a worker with a NaN skips its collectives and the others wait "
    "for ever. Use "
    "tg.DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer), "
    "...) and pass auto_scale_loss=False to model.compile."
)


def test_loss_scale_around_the_outside_is_refused():
    optimizer = tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad())
    with pytest.raises(ValueError) as error:
        LossScale(optimizer)
    assert str(error.value) == NESTING


def test_automatic_loss_scale_is_refused():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = _model()
        with pytest.raises(ValueError) as error:
            model.compile(
                tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad()), "mse"
            )
        assert str(error.value) == NESTING
        optimizer = tg.DistributedOptimizer(LossScale(Sgd(0.5)), tg.TernGrad())
        losses = _fit(_compile(model, optimizer), epochs=5).history["loss"]
        assert losses[-1] < losses[0]
    finally:
        keras.config.set_dtype_policy("float32")


def test_non_finite_gradient_skips_the_step_and_halves_the_scale():
    variable = keras.Variable(np.ones(50), name="w")
    inner = LossScale(Sgd(1.0), initial_scale=4.0)
    optimizer = tg.DistributedOptimizer(inner, tg.TernGrad())
    g = np.full(50, 4.0)
    g[20] = np.nan
    optimizer.apply([tf.constant(g, tf.float32)], [variable])
    np.testing.assert_array_equal(variable, np.ones(50))
    assert float(inner.dynamic_scale) == 2.0
    assert int(optimizer.exchange_step) == 1
    optimizer.apply([tf.fill([50], 4.0)], [variable])
    np.testing.assert_array_equal(variable, np.full(50, -1.0))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (
            dict(optimizer="sgd", compression=tg.TernGrad()),
            TypeError,
            "Invalid type for argument optimizer. Expected a Keras 3 optimizer "
            "(an instance of keras.optimizers.Optimizer). Received: "
            "optimizer='sgd'",
        ),
        (
            dict(optimizer=None, compression=tg.TernGrad()),
            TypeError,
            "Invalid type for argument optimizer. Expected a Keras 3 optimizer "
            "(an instance of keras.optimizers.Optimizer). Received: "
            "optimizer=None",
        ),
        (
            dict(compression="terngrad"),
            TypeError,
            "Invalid type for argument compression. Expected "
            "tg.NoCompression(), tg.FP16() or tg.TernGrad(...). Received: "
            "compression='terngrad'",
        ),
        (
            dict(groups=0),
            ValueError,
            "Invalid value for argument groups. Expected an integer >= 1. "
            "Received: groups=0",
        ),
        (
            dict(groups=2.0),
            ValueError,
            "Invalid value for argument groups. Expected an integer >= 1. "
            "Received: groups=2.0",
        ),
        (
            dict(gradient_accumulation_steps=1),
            ValueError,
            "Invalid value for argument gradient_accumulation_steps. Expected "
            "an integer >= 2. Received: gradient_accumulation_steps=1",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    arguments = {"compression": tg.TernGrad()} | arguments
    if "optimizer" not in arguments:
        arguments["optimizer"] = Sgd(0.1)
    with pytest.raises(error) as info:
        tg.DistributedOptimizer(**arguments)
    assert str(info.value) == message


def test_two_accumulations():
    with pytest.raises(ValueError) as error:
        tg.DistributedOptimizer(
            Sgd(0.1, gradient_accumulation_steps=2),
            tg.TernGrad(),
            gradient_accumulation_steps=3,
        )
    assert str(error.value) == (
        "Invalid value for argument gradient_accumulation_steps. Expected None "
        "or 2, which the optimizer has. Received: "
        "gradient_accumulation_steps=3"
    )


def test_accumulation_cannot_be_set_later():
    optimizer = tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad())
    with pytest.raises(AttributeError) as error:
        optimizer.gradient_accumulation_steps = 2
    assert str(error.value) == (
        "Set gradient_accumulation_steps when DistributedOptimizer is made."
    )


def test_exempt_that_matches_nothing():
    optimizer = tg.DistributedOptimizer(
        Sgd(0.1), tg.TernGrad(exempt=["*/kernel", "*/beta"])
    )
    with pytest.raises(ValueError) as error:
        optimizer.build(_model().trainable_variables)
    assert str(error.value) == (
        "Invalid value for argument exempt. Expected patterns that match a "
        "variable, one of ['mlp/hidden/bias', 'mlp/hidden/kernel', "
        "'mlp/logits/bias', 'mlp/logits/kernel']. Received: '*/beta'"
    )


@pytest.mark.parametrize("in_graph", [False, True])
def test_custom_loop_with_two_optimizers(in_graph):
    first, second = _model(1), _model(2)
    optimizers = [
        tg.DistributedOptimizer(Sgd(0.5), tg.TernGrad()) for _ in range(2)
    ]
    loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

    def step():
        losses = []
        for model, optimizer in zip((first, second), optimizers, strict=True):
            with tf.GradientTape() as tape:
                loss = loss_fn(Y, model(X, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            losses.append(loss)
        return losses

    if in_graph:
        step = tf.function(step)
    losses = np.array([[float(x) for x in step()] for _ in range(15)])
    assert (losses[-1] < losses[0]).all()
    assert [int(o.exchange_step) for o in optimizers] == [15, 15]


def test_none_gradients_are_passed_on():
    used = keras.Variable([1.0], name="used")
    unused = keras.Variable([1.0], name="unused")
    optimizer = tg.DistributedOptimizer(Sgd(1.0), tg.TernGrad())
    with pytest.warns(UserWarning):
        optimizer.apply([tf.constant([0.5]), None], [used, unused])
    np.testing.assert_array_equal(used, [0.5])
    np.testing.assert_array_equal(unused, [1.0])


def test_embedding_gradients_stay_sparse_and_train():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(1000, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    words = np.random.default_rng(1).integers(0, 10, size=(64, 3))
    labels = (words[:, :1] > 4).astype(np.float32)
    _compile(model, tg.DistributedOptimizer(Sgd(0.5), tg.TernGrad()))
    before = _weights(model)[0]
    history = model.fit(words, labels, 64, epochs=30, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    changed = (before != _weights(model)[0]).any(axis=1)
    assert not changed[10:].any()


def test_bits_per_element_of_one_worker_is_0():
    optimizer = tg.DistributedOptimizer(Sgd(0.1), tg.TernGrad())
    optimizer.build(_model().trainable_variables)
    assert optimizer.num_workers == 1
    assert optimizer.bits_per_element() == 0.0


def test_variables_are_own_and_wrapped_ones_once():
    inner = keras.optimizers.Adam(0.1)
    optimizer = tg.DistributedOptimizer(inner, tg.TernGrad())
    optimizer.build(_model().trainable_variables)
    variables = optimizer.variables
    assert len({id(v) for v in variables}) == len(variables)
    assert any(v is optimizer.exchange_step for v in variables)
    inside = {id(v) for v in variables}
    assert all(id(v) in inside for v in inner.variables)
