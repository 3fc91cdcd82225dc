"""tg.exchange in one process, with virtual workers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import custom_ops
import tf_terngrad as tg

SHAPES = [(7, 11), (), (1,), (0,), (40,), (3, 0, 2), (5, 5, 1, 20)]
Z = 5.0  # a two-sided z-test fails with probability 6e-7


def _variables(shapes, dtype=tf.float32):
    return [tf.Variable(tf.zeros(s, dtype)) for s in shapes]


def _gradients(shapes, num_workers, seed=0, dtype=tf.float32):
    rng = np.random.default_rng(seed)
    return [
        [tf.cast(rng.normal(size=s), dtype) for s in shapes]
        for _ in range(num_workers)
    ]


def _exchange(gradients, compression, step=0, **kwargs):
    """Through LocalWorkers; gradients `[workers][tensors]`."""
    return tg.exchange(
        gradients,
        [
            tf.Variable(
                tf.zeros((g.dense_shape if is_sparse(g) else g.shape), g.dtype)
            )
            for g in gradients[0]
        ],
        compression,
        step=tf.constant(step, tf.int64),
        workers=tg.LocalWorkers(len(gradients)),
        **kwargs,
    )


def is_sparse(gradient):
    return isinstance(gradient, tf.IndexedSlices)


def _numpy(tensor):
    return tensor.numpy().astype(np.float64)


def _sigma_scaler(g, clip_factor):
    return float(tg.scaler(tf.cast(g, tf.float64), clip_factor))


def _levels(gradient, own, shared, rank, tensor_id, step, seed=0):
    """Levels in {-1, 0, 1} of one worker, as if it were alone."""
    payload, _ = custom_ops.ternary_encode(
        [gradient],
        own,
        shared,
        tf.constant(step, tf.int64),
        tensor_ids=[tensor_id],
        bucket_size=0,
        num_workers=1,
        rank=rank,
        seed=seed,
    )
    (levels,) = custom_ops.ternary_decode(
        payload,
        tf.ones_like(shared),
        [tf.shape(gradient, tf.int64)],
        [tf.float64],
        bucket_size=0,
        num_workers=1,
    )
    return levels.numpy().astype(np.int64)


@pytest.mark.parametrize("clip_mode", ["own", "shared"])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 9, 11, 64])
def test_average_is_the_exact_sum_of_single_workers_levels(
    num_workers, clip_mode
):
    gradients = _gradients(SHAPES, num_workers)
    for w, local in enumerate(gradients):  # workers of different scale
        gradients[w] = [g * (1.0 + w % 3) for g in local]
    compression = tg.TernGrad(clip_mode=clip_mode, seed=5)
    averages = _exchange(gradients, compression, step=7)

    for t, shape in enumerate(SHAPES):
        of_workers = [local[t] for local in gradients]
        own = [custom_ops.ternary_scalers([g], 2.5, 0) for g in of_workers]
        shared = tf.reduce_max(tf.stack(own), axis=0)
        total = np.zeros(shape, np.int64)
        for rank, g in enumerate(of_workers):
            level = own[rank] if clip_mode == "own" else shared
            total += _levels(g, level, shared, rank, t, step=7, seed=5)
        ratio = np.float32(shared.numpy()[0]) / np.float32(num_workers)
        expected = total.astype(np.float32) * ratio
        assert averages[t].shape == shape
        np.testing.assert_array_equal(averages[t], expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 9, 11, 64, 127])
def test_all_levels_alike(num_workers, sign):
    # |g| = s: every element fires on every worker, every digit is 0 or 2N.
    gradients = [
        [tf.fill([100], sign * 0.7), tf.fill([3], sign * 1.3)]
    ] * num_workers
    averages = _exchange(gradients, tg.TernGrad(clip_factor=None))
    for average, g in zip(averages, gradients[0], strict=True):
        ratio = np.abs(g.numpy()) / np.float32(num_workers)
        expected = np.float32(sign * num_workers) * ratio
        np.testing.assert_array_equal(average, expected)


@pytest.mark.parametrize("clip_mode", ["own", "shared"])
def test_clip_mode_own_clips_at_own_level_and_shared_at_the_largest(clip_mode):
    # Worker 0's outliers lie above its own clip level, but below the shared
    # scaler, which is worker 1's; there worker 1 has zeros.
    outliers, size = 4096, 65536
    narrow = np.zeros(size, np.float32)
    narrow[:outliers] = 1.0
    wide = np.full(size, 2.0, np.float32)
    wide[::2] *= -1
    wide[:outliers] = 0.0
    gradients = [[tf.constant(g)] for g in (narrow, wide)]
    own = _sigma_scaler(gradients[0][0], 2.5)
    assert own < 1.0 < _sigma_scaler(gradients[1][0], 2.5) == 2.0

    (average,) = _exchange(gradients, tg.TernGrad(clip_mode=clip_mode))

    assert set(np.unique(average[:outliers])) == {0.0, 1.0}  # s / N = 1
    p = (own if clip_mode == "own" else 1.0) / 2.0
    z = (np.mean(average[:outliers]) - p) / np.sqrt(p * (1 - p) / outliers)
    assert abs(z) < Z


@pytest.mark.parametrize("bucket_size", [None, 8])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_average_is_unbiased_with_the_stated_variance(num_workers, bucket_size):
    # One long tensor repeats the same 24 values: every copy is a draw.
    copies = 4096
    rng = np.random.default_rng(0)
    values = rng.uniform(-1.0, 1.0, size=(num_workers, 24))
    gradients = [[tf.constant(np.tile(v, copies), tf.float32)] for v in values]
    compression = tg.TernGrad(clip_factor=None, bucket_size=bucket_size)
    draws = _numpy(_exchange(gradients, compression)[0]).reshape(copies, 24)

    if bucket_size:
        s = np.abs(values).reshape(num_workers, 3, 8).max(axis=(0, 2))
        s = np.repeat(s, 8)
    else:
        s = np.abs(values).max()
    variance = np.sum(s * np.abs(values) - values**2, axis=0) / num_workers**2
    z = (draws.mean(axis=0) - values.mean(axis=0)) / np.sqrt(
        np.maximum(variance, 1e-10) / copies
    )
    # 24 values in 4 cases: fails with probability 6e-5 for a random seed.
    assert np.max(np.abs(z)) < Z
    # The variance of 24 * 4096 draws in all, to 5 of its standard errors,
    # which are at most (kurtosis bounded by that of a Bernoulli) 2 %.
    np.testing.assert_allclose(
        draws.var(axis=0).mean(), variance.mean(), rtol=0.02
    )


def test_clipped_average_is_unbiased_for_the_clipped_gradient():
    copies = 4096
    values = np.concatenate([np.linspace(-1, 1, 23), [20.0]])
    g = tf.constant(np.tile(values, copies), tf.float32)
    level = _sigma_scaler(g, 2.5)
    draws = _numpy(_exchange([[g]], tg.TernGrad())[0]).reshape(copies, 24)
    clipped = np.clip(values, -level, level)
    variance = np.maximum(level * np.abs(clipped) - clipped**2, 1e-10)
    z = (draws.mean(axis=0) - clipped) / np.sqrt(variance / copies)
    # The last element always fires: only float rounding is left.
    assert np.max(np.abs(z[:-1])) < Z
    np.testing.assert_allclose(draws[:, -1], level, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64]
)
def test_buckets_of_one_element_are_float_sgd(dtype):
    gradients = _gradients(SHAPES, 1, dtype=dtype)
    compression = tg.TernGrad(clip_factor=None, bucket_size=1)
    for average, g in zip(
        _exchange(gradients, compression), gradients[0], strict=True
    ):
        assert average.dtype == g.dtype
        np.testing.assert_array_equal(_numpy(average), _numpy(g))


@pytest.mark.parametrize(
    "dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64]
)
@pytest.mark.parametrize("num_workers", [1, 3])
def test_dtypes_are_kept_and_rounded_once(num_workers, dtype):
    gradients = _gradients([(50,)], num_workers, dtype=dtype)
    (average,) = _exchange(gradients, tg.TernGrad(clip_factor=None))
    assert average.dtype == dtype
    wide = np.float64 if dtype == tf.float64 else np.float32
    s = max(np.abs(g[0].numpy().astype(wide)).max() for g in gradients)
    ratio = wide(s) / wide(num_workers)
    levels = {
        tf.cast(wide(k) * ratio, dtype).numpy().astype(np.float64)
        for k in range(-num_workers, num_workers + 1)
    }
    found = set(_numpy(average).tolist())
    assert found <= levels
    assert len(found) > 2


def test_mixed_dtypes_in_one_exchange():
    dtypes = [tf.float16, tf.float64, tf.float32, tf.bfloat16]
    gradients = [
        [tf.cast(tf.fill([40], x), d) for d in dtypes] for x in (0.5, 0.5)
    ]
    averages = _exchange(gradients, tg.TernGrad(clip_factor=None))
    for average, dtype in zip(averages, dtypes, strict=True):
        assert average.dtype == dtype
        np.testing.assert_array_equal(_numpy(average), np.full(40, 0.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("worker", [0, 1, 2])
@pytest.mark.parametrize("position", [0, 50, 99])
def test_non_finite_element_arrives_as_nan_in_its_bucket_only(
    position, worker, bad
):
    gradients = [[g[0].numpy() for g in _gradients([(100,)], 3)] for _ in "ab"]
    gradients = [
        [tf.constant(gradients[t][w]) for t in range(2)] for w in range(3)
    ]
    broken = gradients[worker][1].numpy().copy()
    broken[position] = bad
    gradients[worker][1] = tf.constant(broken)

    fine, spoilt = _exchange(gradients, tg.TernGrad(bucket_size=10))

    assert np.isfinite(fine).all()
    bucket = np.arange(100) // 10 == position // 10
    assert np.isnan(spoilt.numpy()[bucket]).all()
    assert np.isfinite(spoilt.numpy()[~bucket]).all()
    _, whole = _exchange(gradients, tg.TernGrad())
    assert np.isnan(whole).all()


@pytest.mark.parametrize("compression", [tg.NoCompression(), tg.FP16()])
def test_float_exchange_keeps_nan(compression):
    gradients = [[tf.constant([1.0, np.nan])], [tf.constant([1.0, 2.0])]]
    (average,) = _exchange(gradients, compression)
    np.testing.assert_array_equal(average, [1.0, np.nan])


def test_zero_gradients_arrive_as_zero():
    averages = _exchange([[tf.zeros([50]), tf.zeros([])]] * 2, tg.TernGrad())
    np.testing.assert_array_equal(averages[0], np.zeros(50))
    np.testing.assert_array_equal(averages[1], 0.0)


@pytest.mark.parametrize(
    "compression", [tg.TernGrad(), tg.NoCompression(), tg.FP16()]
)
def test_none_gradients_stay_none(compression):
    g = tf.ones([3])
    averages = tg.exchange(
        [None, g, None], _variables([(2,), (3,), (4,)]), compression
    )
    assert averages[0] is None
    assert averages[2] is None
    np.testing.assert_array_equal(averages[1], g)


def test_no_gradients_at_all():
    assert tg.exchange([None], _variables([(2,)]), tg.TernGrad()) == [None]
    assert tg.exchange([], [], tg.TernGrad()) == []


def _average_with(step=0, seed=0, position=0, worker=0):
    """Levels of one tensor at a place in the random streams."""
    g = tf.fill([4000], 0.5)
    zero = tf.zeros([4000])
    one = tf.ones([1])  # makes the scaler 1
    g = tf.concat([g, one], axis=0)
    local = [None] * (position + 1)
    gradients = []
    for w in range(worker + 1):
        local = [None] * (position + 1)
        local[position] = g if w == worker else tf.concat([zero, one], axis=0)
        gradients.append(local)
    averages = tg.exchange(
        gradients,
        _variables([(4001,)] * (position + 1)),
        tg.TernGrad(clip_factor=None, seed=seed),
        step=tf.constant(step, tf.int64),
        workers=tg.LocalWorkers(worker + 1),
    )
    return averages[position].numpy()[:4000] > 0


def test_same_place_in_the_random_streams_gives_the_same_bits():
    np.testing.assert_array_equal(
        _average_with(step=3, seed=9), _average_with(step=3, seed=9)
    )


@pytest.mark.parametrize(
    "place",
    [
        dict(step=1),
        dict(step=256),
        dict(step=2**39),
        dict(seed=1),
        dict(seed=-1),
        dict(seed=2**32),
        dict(position=1),
        dict(worker=1),
    ],
    ids=str,
)
def test_different_places_in_the_random_streams_are_independent(place):
    a, b = _average_with(), _average_with(**place)
    # Fair coins agree in half the elements: 6e-7 to fail, each.
    z = (np.mean(a == b) - 0.5) / np.sqrt(0.25 / 4000)
    assert abs(z) < Z


def test_own_step_counter_is_read_then_incremented_once():
    compression = tg.TernGrad(clip_factor=None)
    g = [tf.constant(np.random.default_rng(0).normal(size=100))]
    variables = _variables([(100,)], tf.float64)

    for step in range(3):
        assert int(compression.step) == step
        (average,) = tg.exchange(g, variables, compression)
        (expected,) = _exchange([g], tg.TernGrad(clip_factor=None), step)
        np.testing.assert_array_equal(average, expected)
    assert int(compression.step) == 3


@pytest.mark.parametrize("keras_variable", [False, True])
@pytest.mark.parametrize("in_graph", [False, True])
def test_given_step_counter_is_read_then_incremented_once(
    in_graph, keras_variable
):
    compression = tg.TernGrad(clip_factor=None)
    g = [tf.constant(np.random.default_rng(0).normal(size=100))]
    variables = _variables([(100,)], tf.float64)
    if keras_variable:
        step = keras.Variable(5, dtype="int64")
    else:
        step = tf.Variable(5, dtype=tf.int64)

    def exchange():
        return tg.exchange(g, variables, compression, step=step)

    if in_graph:
        exchange = tf.function(exchange)
    for count in range(5, 8):
        (average,) = exchange()
        (expected,) = _exchange([g], tg.TernGrad(clip_factor=None), count)
        np.testing.assert_array_equal(average, expected)
        assert int(keras.ops.convert_to_numpy(step)) == count + 1


def test_graph_counts_steps_not_traces():
    compression = tg.TernGrad(clip_factor=None)
    variables = _variables([(100,)], tf.float64)
    g = tf.constant(np.random.default_rng(0).normal(size=100))

    @tf.function
    def exchange():
        return tg.exchange([g], variables, compression)[0]

    results = [exchange().numpy() for _ in range(3)]
    assert int(compression.step) == 3
    assert (results[0] != results[1]).any()
    assert (results[1] != results[2]).any()


@pytest.mark.parametrize(
    "compression",
    [
        tg.TernGrad(min_size=10),
        tg.TernGrad(exempt=("*small*",)),
    ],
)
def test_min_size_and_exempt_travel_in_float(compression):
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(np.zeros(9), name="small"),
        keras.Variable(np.zeros(100), name="large"),
    ]
    gradients = [
        [tf.constant(rng.normal(size=v.shape), tf.float32) for v in variables]
        for _ in range(3)
    ]
    small, large = tg.exchange(
        gradients, variables, compression, workers=tg.LocalWorkers(3)
    )
    np.testing.assert_allclose(
        small, np.mean([g[0] for g in gradients], axis=0), rtol=1e-6
    )
    assert len(np.unique(np.abs(large))) <= 4  # 0, s/3, 2s/3, s


def test_exempt_does_not_change_the_random_streams_of_the_others():
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(np.zeros(100), name=name) for name in ("a", "b")
    ]
    g = [tf.constant(rng.normal(size=100), tf.float32) for _ in variables]
    plain = tg.exchange(g, variables, tg.TernGrad())
    exempt = tg.exchange(g, variables, tg.TernGrad(exempt=["a"]))
    np.testing.assert_array_equal(exempt[0], g[0])
    np.testing.assert_array_equal(exempt[1], plain[1])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_no_compression_is_the_average(num_workers):
    gradients = _gradients(SHAPES, num_workers)
    averages = _exchange(gradients, tg.NoCompression())
    for t, average in enumerate(averages):
        expected = np.mean([g[t].numpy() for g in gradients], axis=0)
        assert average.shape == SHAPES[t]
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
@pytest.mark.parametrize("compression", [tg.NoCompression(), tg.FP16()])
def test_float_exchange_keeps_dtypes(compression, dtype):
    gradients = _gradients([(5,)], 2, dtype=dtype)
    (average,) = _exchange(gradients, compression)
    assert average.dtype == dtype
    expected = np.mean([_numpy(g[0]) for g in gradients], axis=0)
    tolerance = 1e-2 if dtype == tf.bfloat16 else 2e-3
    np.testing.assert_allclose(_numpy(average), expected, rtol=tolerance)


def test_no_compression_keeps_all_digits_of_float64():
    g = tf.constant([1.0 + 2.0**-50], tf.float64)
    (average,) = _exchange([[g], [g]], tg.NoCompression())
    np.testing.assert_array_equal(average, g)


def test_fp16_rounds_to_float16():
    g = tf.constant([1.0 + 2.0**-12])
    (average,) = _exchange([[g]], tg.FP16())
    np.testing.assert_array_equal(average, [1.0])


def test_inside_tf_function_with_unknown_shapes():
    variables = _variables([(100,), (10,)])
    compression = tg.TernGrad(clip_factor=None)

    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec([None])])
    def exchange(a, b):
        return tg.exchange(
            [a, b], variables, compression, step=tf.constant(0, tf.int64)
        )

    g = _gradients([(100,), (10,)], 1)[0]
    expected = _exchange([g], compression)
    for average, same in zip(exchange(*g), expected, strict=True):
        np.testing.assert_array_equal(average, same)


@pytest.mark.parametrize(
    "gradients, workers, message",
    [
        (
            [tf.ones([2])],
            None,
            "Invalid value for argument gradients. Expected one for each of 2 "
            "variables. Received: 1 gradients",
        ),
        (
            [[tf.ones([2]), tf.ones([2])]],
            2,
            "Invalid value for argument gradients. Expected one list for each "
            "of 2 local workers. Received: 1 lists",
        ),
        (
            [[tf.ones([2]), tf.ones([2])], [tf.ones([2]), None]],
            2,
            "Invalid value for argument gradients. Expected None for the same "
            "variables on all local workers.",
        ),
    ],
)
def test_bad_gradients(gradients, workers, message):
    with pytest.raises(ValueError) as error:
        tg.exchange(
            gradients,
            _variables([(2,), (2,)]),
            tg.TernGrad(),
            workers=workers and tg.LocalWorkers(workers),
        )
    assert str(error.value) == message


def test_process_set_without_other_workers():
    with pytest.raises(ValueError) as error:
        tg.exchange(
            [tf.ones([2])],
            _variables([(2,)]),
            tg.TernGrad(),
            process_set="evens",
        )
    assert str(error.value) == (
        "Invalid value for argument process_set. Expected None: this process "
        "is the only worker. Received: process_set=evens"
    )


def test_min_size_needs_known_shapes():
    exchange = tf.function(
        lambda g: tg.exchange(
            [g], [keras.Variable([0.0], name="w")], tg.TernGrad(min_size=2)
        ),
        input_signature=[tf.TensorSpec([None])],
    )
    with pytest.raises(ValueError) as error:
        exchange(tf.ones([1]))
    assert (
        "Invalid value for argument min_size. Expected 0: the shape of the "
        "gradient of w is not known. Received: min_size=2"
    ) in str(error.value)
