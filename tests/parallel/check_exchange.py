"""Run by test_parallel.py in every worker: tg.exchange between processes."""

import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad import collectives

RANK, SIZE = tg.rank(), tg.size()
SHAPES = [(7, 11), (), (0,), (40,), (5, 5, 1, 20)]
COMPRESSIONS = [
    tg.TernGrad(),
    tg.TernGrad(clip_mode="shared", seed=3),
    tg.TernGrad(clip_factor=None, bucket_size=16),
    tg.TernGrad(min_size=50),
    tg.TernGrad(exchange="allgather"),
    tg.TernGrad(exchange="allreduce", bucket_size=9),
    tg.TernGrad(exchange="alltoall"),
    tg.TernGrad(exchange="alltoall", clip_mode="shared", bucket_size=16),
    tg.NoCompression(),
    tg.FP16(),
]


def _variables(shapes):
    return [tf.Variable(tf.zeros(s)) for s in shapes]


def _gradients(rank, shapes=SHAPES, seed=0, dtype=np.float32):
    """What any worker can compute for any other."""
    rng = np.random.default_rng([seed, rank])
    return [
        tf.constant(rng.normal(size=s).astype(dtype) * (1 + rank))
        for s in shapes
    ]


def _local_workers(gradients, shapes, compression, step):
    """The same exchange inside this process alone."""
    sizes = collectives.Workers.__new__(collectives.Workers)
    sizes.size, sizes.rank = 1, 0
    return compression.average(
        gradients,
        paths=[f"v{i}" for i in range(len(shapes))],
        ids=list(range(len(shapes))),
        step=tf.constant(step, tf.int64),
        workers=sizes,
        name="alone",
    )


def _assert_same_on_all_workers(tensors, name):
    mine = [np.asarray(t).tobytes() for t in tensors]
    for other in collectives.allgather_object(mine, name):
        assert other == mine


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS, ids=str)
def test_equals_virtual_workers_to_the_bit(compression, in_graph):
    variables = _variables(SHAPES)

    def exchange(*gradients):
        return tg.exchange(
            list(gradients),
            variables,
            compression,
            step=tf.constant(11, tf.int64),
        )

    if in_graph:
        exchange = tf.function(exchange)
    averages = exchange(*_gradients(RANK))

    expected = _local_workers(
        [_gradients(r) for r in range(SIZE)], SHAPES, compression, 11
    )
    for average, same in zip(averages, expected, strict=True):
        if isinstance(compression, tg.TernGrad) and not compression.min_size:
            np.testing.assert_array_equal(average, same)
        else:  # floats: another order of addition, or float16 on the wire
            tolerance = 4e-3 if isinstance(compression, tg.FP16) else 1e-5
            np.testing.assert_allclose(
                average, same, rtol=tolerance, atol=tolerance
            )
    _assert_same_on_all_workers(averages, "check")


def test_closed_form():
    # |g| = s everywhere: nothing is random. Signs differ between workers.
    signs = [
        np.where(np.arange(200) % (r + 2) == 0, -1.0, 1.0) for r in range(SIZE)
    ]
    g = tf.constant(0.3 * signs[RANK], tf.float32)
    (average,) = tg.exchange(
        [g], _variables([(200,)]), tg.TernGrad(clip_factor=None)
    )
    ratio = np.float32(0.3) / np.float32(SIZE)
    expected = np.sum(signs, axis=0).astype(np.float32) * ratio
    np.testing.assert_array_equal(average, expected)


def test_closed_form_with_different_scalers():
    # Only the worker of the largest gradient decides the scaler; where it
    # sends +1 and the others, all zero, send 0, the average is s / N.
    g = tf.fill([77], 2.0) if RANK == SIZE - 1 else tf.zeros([77])
    (average,) = tg.exchange([g], _variables([(77,)]), tg.TernGrad())
    ratio = np.float32(2.0) / np.float32(SIZE)
    np.testing.assert_array_equal(average, np.full(77, ratio))


def test_unequal_seeds_still_agree():
    averages = tg.exchange(
        _gradients(RANK), _variables(SHAPES), tg.TernGrad(seed=RANK)
    )
    _assert_same_on_all_workers(averages, "seeds")


def test_workers_never_share_a_stream():
    # Equal gradients of 0.5 s: were the bits shared, every sum would be 0
    # or N, never between.
    g = tf.concat([tf.ones([1]), tf.fill([1000], 0.5)], axis=0)
    (average,) = tg.exchange(
        [g], _variables([(1001,)]), tg.TernGrad(clip_factor=None)
    )
    sums = np.round(average[1:] * SIZE)
    # Between 0 and N: 1 - 2^(1 - N) of them, to 5 standard errors.
    p = 1 - 2.0 ** (1 - SIZE)
    between = np.mean((sums > 0) & (sums < SIZE))
    assert abs(between - p) < 5 * np.sqrt(p * (1 - p) / 1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("bucket_size", [None, 16])
def test_non_finite_elements_arrive_as_nan_on_all_workers(bucket_size, bad):
    shapes = [(7, 11), (), (40,), (300,)]
    compression = tg.TernGrad(bucket_size=bucket_size)

    variables = _variables(shapes)
    exchange = tf.function(
        lambda *g: tg.exchange(list(g), variables, compression)
    )
    for worker in range(SIZE):
        for t, shape in enumerate(shapes):
            size = int(np.prod(shape))
            for position in {0, size // 2, size - 1}:
                gradients = _gradients(RANK, shapes)
                if worker == RANK:
                    flat = gradients[t].numpy().reshape(-1).copy()
                    flat[position] = bad
                    gradients[t] = tf.reshape(flat, shape)
                averages = exchange(*gradients)
                width = bucket_size or size
                for i, average in enumerate(averages):
                    flat = average.numpy().reshape(-1)
                    bucket = np.arange(flat.size) // width == position // width
                    spoilt = bucket if i == t else np.zeros_like(bucket)
                    np.testing.assert_array_equal(np.isnan(flat), spoilt)


@pytest.mark.parametrize(
    "compression",
    [tg.TernGrad(clip_factor=None), tg.NoCompression(), tg.FP16()],
    ids=str,
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_unused_results_do_not_stop_the_others(in_graph, compression):
    # TensorFlow would prune the collectives of worker 0 as dead.
    variables = _variables([(10,)])

    def exchange():
        averages = tg.exchange([tf.ones([10])], variables, compression)
        return tf.constant(0.0) if RANK == 0 else averages[0]

    if in_graph:
        exchange = tf.function(exchange)
    for _ in range(2):
        exchange()


@pytest.mark.parametrize("compression", COMPRESSIONS[:5:2], ids=str)
def test_constant_gradients_under_tf_function(compression):
    variables = _variables([(10,), (3, 3), ()])
    scale = tf.Variable(1.0)

    def exchange():
        # Constant on worker 0 only: folded there, its collectives would run
        # once, those of the others each time.
        factor = 1.0 if RANK == 0 else scale.read_value()
        gradients = [
            tf.fill([10], 2.0) * factor,
            tf.fill([3, 3], -1.0) * factor,
            tf.constant(0.5) * factor,
        ]
        return tg.exchange(gradients, variables, compression)

    graph = tf.function(exchange)
    for _ in range(3):
        for of_graph, of_eager in zip(graph(), exchange(), strict=True):
            np.testing.assert_array_equal(of_graph, of_eager)
    np.testing.assert_allclose(graph()[0], np.full(10, 2.0))


# Worker -> rows; 3 is twice on worker 0, worker 1 has none, worker 2 others.
_ROWS = {0: [3, 0, 3], 1: [], 2: [5, 0]}


def _slices(rank, scale=1.0):
    rows = _ROWS[rank % 3]
    values = np.arange(1.0, 1 + 2 * len(rows)).reshape(-1, 2) * scale
    return tf.IndexedSlices(
        tf.constant(values, tf.float32),
        tf.constant(rows, tf.int64),
        tf.constant([6, 2], tf.int64),
    )


def _dense_sum(slices):
    total = np.zeros((6, 2))
    for s in slices:
        np.add.at(total, s.indices.numpy(), s.values.numpy())
    return total


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("compression", [tg.NoCompression(), tg.FP16()])
def test_sparse_gradients_in_float(compression, in_graph):
    variables = _variables([(6, 2), (6, 2), (4,)])

    def exchange():
        return tg.exchange(
            [_slices(RANK), _slices(RANK, 10.0), tf.ones([4])],
            variables,
            compression,
        )

    if in_graph:
        exchange = tf.function(exchange)
    a, b, dense = exchange()
    expected = _dense_sum([_slices(r) for r in range(SIZE)]) / SIZE
    used = sorted({row for r in range(SIZE) for row in _ROWS[r % 3]})
    for average, scale in ((a, 1.0), (b, 10.0)):
        np.testing.assert_array_equal(average.indices, used)
        np.testing.assert_allclose(
            average.values, expected[used] * scale, rtol=2e-3
        )
    np.testing.assert_array_equal(dense, np.ones(4))


@pytest.mark.parametrize("in_graph", [False, True])
def test_sparse_ternary_gradients_in_closed_form(in_graph):
    # Every row's elements are s or -s after duplicates are added.
    def slices(rank):
        rows = _ROWS[rank % 3]
        # Row 3 comes twice on worker 0: two halves.
        values = [
            [1.0, -1.0] if rows.count(r) == 1 else [0.5, -0.5] for r in rows
        ]
        return tf.IndexedSlices(
            tf.reshape(tf.constant(values, tf.float32), [-1, 2]),
            tf.constant(rows, tf.int32),
            tf.constant([6, 2], tf.int32),
        )

    variables = _variables([(6, 2), (3,)])
    compression = tg.TernGrad()

    def exchange():
        return tg.exchange(
            [slices(RANK), tf.fill([3], 0.25)], variables, compression
        )

    if in_graph:
        exchange = tf.function(exchange)
    rows, dense = exchange()
    expected = _dense_sum([slices(r) for r in range(SIZE)])
    used = sorted({row for r in range(SIZE) for row in _ROWS[r % 3]})
    assert rows.indices.dtype == tf.int32
    np.testing.assert_array_equal(rows.indices, used)
    ratio = np.float32(1.0) / np.float32(SIZE)
    np.testing.assert_array_equal(
        rows.values, expected[used].astype(np.float32) * ratio
    )
    np.testing.assert_array_equal(dense, np.full(3, 0.25))
    _assert_same_on_all_workers([rows.values, rows.indices], "rows")


def test_sparse_gradients_without_rows_anywhere():
    empty = tf.IndexedSlices(
        tf.zeros([0, 2]), tf.zeros([0], tf.int64), tf.constant([6, 2], tf.int64)
    )
    for compression in (tg.TernGrad(), tg.NoCompression()):
        (average,) = tg.exchange([empty], _variables([(6, 2)]), compression)
        assert average.values.shape == (0, 2)


def test_sparse_non_finite_rows_arrive_as_nan_on_all_workers():
    for worker in (0, 2):
        if worker >= SIZE:
            continue
        slices = _slices(RANK, np.inf if RANK == worker else 1.0)
        (average,) = tg.exchange([slices], _variables([(6, 2)]), tg.TernGrad())
        assert np.isnan(average.values).all()


def test_process_set():
    hvd = pytest.importorskip("horovod.tensorflow")
    if SIZE < 3:
        pytest.skip("needs 3 workers")
    chosen = [0, SIZE - 1]
    process_set = hvd.add_process_set(chosen)
    try:
        g = tf.fill([10], 1.0 + RANK)
        (average,) = tg.exchange(
            [g],
            _variables([(10,)]),
            tg.TernGrad(),
            process_set=process_set,
            name="subset",
        )
        if RANK in chosen:
            _, ternary = None, average.numpy()
            # s = SIZE: the last worker always sends +1, the first sometimes.
            assert set(np.unique(ternary)) <= {SIZE / 2, float(SIZE)}
        else:
            np.testing.assert_array_equal(average, g)
        (average,) = tg.exchange(
            [g],
            _variables([(10,)]),
            tg.NoCompression(),
            process_set=process_set,
            name="subset",
        )
        expected = (1.0 + SIZE) / 2 if RANK in chosen else 1.0 + RANK
        np.testing.assert_array_equal(average, np.full(10, expected))
    finally:
        hvd.remove_process_set(process_set)


def test_virtual_workers_in_real_ones():
    # 2 in each process: the same bits as 2 * SIZE in one.
    compression = tg.TernGrad()
    averages = tg.exchange(
        [_gradients(2 * RANK), _gradients(2 * RANK + 1)],
        _variables(SHAPES),
        compression,
        step=tf.constant(1, tf.int64),
        workers=tg.LocalWorkers(2),
    )
    expected = _local_workers(
        [_gradients(r) for r in range(2 * SIZE)], SHAPES, compression, 1
    )
    for average, same in zip(averages, expected, strict=True):
        np.testing.assert_array_equal(average, same)


def _two_tapes(compressions, order):
    """Gradients 1 and 2 by two tapes, whose collectives may meet."""
    variables = [tf.Variable(tf.ones([1000])) for _ in range(2)]

    @tf.function
    def step():
        gradients = [None, None]
        for i in order:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(variables[i]) * (i + 1.0)
            tape = tg.DistributedGradientTape(tape, compressions[i])
            (gradients[i],) = tape.gradient(loss, [variables[i]])
        return gradients

    return step


@pytest.mark.parametrize("same", [False, True])
def test_two_tapes_in_one_function(same):
    first = tg.TernGrad(clip_factor=None)
    second = first if same else tg.TernGrad(clip_factor=None)
    # Workers may run what does not depend on each other in any order.
    order = [0, 1] if same or RANK == 0 else [1, 0]
    step = _two_tapes([first, second], order)
    for _ in range(20):
        one, two = step()
        np.testing.assert_array_equal(one, np.full(1000, 1.0))
        np.testing.assert_array_equal(two, np.full(1000, 2.0))


@pytest.mark.parametrize("exchange", ["allgather", "allreduce", "alltoall"])
def test_exchanges_give_the_same_bits_in_a_graph(exchange):
    shapes = [(1000, 13), (3,), (0,), (161,)]
    variables = _variables(shapes)
    gradients = _gradients(RANK, shapes)
    results = []
    for compression in (
        tg.TernGrad(exchange=exchange),
        tg.TernGrad(exchange=exchange, parts=5),
        tg.TernGrad(),
    ):

        @tf.function
        def step(*gradients, compression=compression):
            return tg.exchange(
                list(gradients),
                variables,
                compression,
                step=tf.constant(5, tf.int64),
                name=f"same.{compression.exchange}.{compression.parts}",
            )

        results.append(step(*gradients))
    for a, *others in zip(*results, strict=True):
        for b in others:
            np.testing.assert_array_equal(a, b)
    _assert_same_on_all_workers(results[0], exchange)


def test_real_and_local_workers_together():
    # SIZE * 2 workers: every process stands for two.
    shapes = [(40, 9), (7,)]
    for exchange in ("allgather", "allreduce", "alltoall"):
        compression = tg.TernGrad(exchange=exchange)
        averages = tg.exchange(
            [_gradients(2 * RANK + i, shapes) for i in range(2)],
            _variables(shapes),
            compression,
            step=tf.constant(2, tf.int64),
            workers=tg.LocalWorkers(2),
        )
        expected = _local_workers(
            [_gradients(r, shapes) for r in range(2 * SIZE)],
            shapes,
            compression,
            2,
        )
        for average, same in zip(averages, expected, strict=True):
            np.testing.assert_array_equal(average, same)


@pytest.mark.parametrize("exchange", ["allgather", "allreduce", "alltoall"])
def test_gradients_of_other_shapes_stop_all_workers(exchange):
    size = 300 if RANK == 0 else 301
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        tg.exchange(
            [tf.ones([size])],
            _variables([(size,)]),
            tg.TernGrad(exchange=exchange),
            name=f"shapes.{exchange}",
        )
    assert (
        "Gradients differ between workers in number, shape or dtype. Those of "
        f"worker {RANK}: [('float32', '({size},)')]"
    ) in str(error.value)
    # The workers are still together.
    assert len(tg.exchange([tf.ones([3])], _variables([(3,)]), tg.TernGrad()))


def test_float_now_and_then():
    variables = _variables([(2,)])
    compression = tg.TernGrad(warmup_steps=1, float_every=3, seed=4)
    counter = tf.Variable(0, dtype=tf.int64)
    g = tf.constant([1.0, 1e-3])

    @tf.function
    def step():
        (average,) = tg.exchange([g], variables, compression, step=counter)
        return average

    in_float = [abs(float(step()[1]) - 1e-3) < 1e-8 for _ in range(7)]
    assert in_float == [True, False, True, False, False, True, False]


def test_float_now_and_then_survives_unused_results():
    # The collectives of the branch must not be pruned on one worker alone.
    variables = _variables([(2,)])
    compression = tg.TernGrad(float_every=2)
    counter = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def step(g):
        (average,) = tg.exchange([g], variables, compression, step=counter)
        return average if RANK == 0 else tf.zeros([2])

    for _ in range(4):
        step(tf.constant([1.0, 2.0]))
    assert counter.numpy() == 4


def test_measured_link_is_the_same_everywhere():
    link = tg.measure_link()
    assert 0 < link.latency < 10 and 1e5 < link.bandwidth < 1e13
    assert set(collectives.allgather_object(link, "link")) == {link}
