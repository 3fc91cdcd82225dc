"""All exchanges move the same levels."""

import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tests.tf_terngrad.test_exchange import SHAPES, _exchange, _gradients
from tf_terngrad import wire
from tf_terngrad.statistics import ExchangeStatistics

EXCHANGES = ["allgather", "allreduce", "alltoall"]


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.float64])
@pytest.mark.parametrize("bucket_size", [None, 7])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 8, 64, 127, 130])
def test_same_bits_by_all_exchanges(num_workers, bucket_size, dtype):
    shapes = SHAPES + [(160,), (161,), (4800,)]
    gradients = _gradients(shapes, num_workers, dtype=dtype)
    averages = [
        _exchange(
            gradients,
            tg.TernGrad(bucket_size=bucket_size, exchange=exchange),
            step=3,
        )
        for exchange in EXCHANGES
    ]
    for t, shape in enumerate(shapes):
        assert averages[0][t].shape == shape
        for other in averages[1:]:
            np.testing.assert_array_equal(averages[0][t], other[t])
    assert any(np.any(np.asarray(a)) for a in averages[0])


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("parts", [2, 7, 100])
def test_parts_change_no_bit(exchange, parts):
    shapes = SHAPES + [(160,), (161,), (4800,)]
    gradients = _gradients(shapes, 3)

    def exchange_in(parts):
        statistics = ExchangeStatistics(len(shapes))
        compression = tg.TernGrad(
            bucket_size=100, exchange=exchange, parts=parts
        )
        averages = _exchange(gradients, compression, statistics=statistics)
        return averages, statistics.totals()

    averages, totals = exchange_in(parts)
    expected, expected_totals = exchange_in(1)
    assert totals == expected_totals
    for received, average in zip(averages, expected, strict=True):
        np.testing.assert_array_equal(received, average)


def test_number_of_parts():
    # 2 ns an element: 2 s of encoding and decoding for a billion, 1 ms a part.
    counts = [
        wire.choose_parts([size], tg.Link())
        for size in (0, 431_080, 7_000_000, 60_965_224, 10**9)
    ]
    assert counts == [1, 1, 4, 11, 16]
    assert wire.choose_parts([60_965_224], tg.Link(latency=0.01)) == 3


@pytest.mark.parametrize("num_workers", [2, 8])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_parts_hardly_add_bits(exchange, num_workers):
    sizes = [10_000, 3, 61_000_000]
    whole = wire.Plan(exchange).bits(sizes, num_workers)
    for parts in (2, 16):
        bits = wire.Plan(exchange, parts).bits(sizes, num_workers)
        assert whole <= bits < 1.02 * whole


def test_parts_are_checked():
    with pytest.raises(ValueError, match="parts"):
        tg.TernGrad(parts=0)
    assert tg.TernGrad(parts=3).get_config()["parts"] == 3


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_nan_arrives_as_nan(exchange):
    gradients = _gradients([(200,), (3,)], 3)
    gradients[1][0] = tf.tensor_scatter_nd_update(
        gradients[1][0], [[17]], [np.nan]
    )
    compression = tg.TernGrad(exchange=exchange, bucket_size=10)
    first, second = _exchange(gradients, compression)
    nans = np.isnan(first.numpy())
    assert nans[10:20].all() and nans.sum() == 10
    assert np.isfinite(second.numpy()).all()


@pytest.mark.parametrize(
    "sizes, num_workers, link, expected",
    [
        # 1.6 bits against 2.4 and 2.0: least, and one collective.
        ([10_000_000], 2, tg.Link(), "allgather"),
        # 3.6 bits against 4.8: worth a collective of 1 ms from 0.8 M on.
        ([10_000_000], 4, tg.Link(), "alltoall"),
        ([100_000], 4, tg.Link(), "allgather"),
        ([10_000_000], 4, tg.Link(latency=1.0), "allgather"),
        # 11.2 bits against 7.5.
        ([100_000], 8, tg.Link(), "allreduce"),
        ([10_000_000], 8, tg.Link(), "alltoall"),
        ([], 2, tg.Link(), "allgather"),
    ],
)
def test_choice(sizes, num_workers, link, expected):
    assert wire.choose(sizes, num_workers, link) == expected


def test_auto_says_the_bits_of_its_choice():
    sizes, paths = [10_000_000], ["w"]
    for num_workers, expected in ((2, "allgather"), (4, "alltoall")):
        assert tg.TernGrad().bits_sent(
            sizes, paths, num_workers
        ) == tg.TernGrad(exchange=expected).bits_sent(sizes, paths, num_workers)


# --- float now and then ------------------------------------------------------


def _is_float(compression, steps):
    """Whether each exchange kept an element that is far below the scaler."""
    g = tf.constant([1.0, 1e-3])
    variable = tf.Variable(tf.zeros([2]))
    counter = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def exchange():
        (average,) = tg.exchange([g], [variable], compression, step=counter)
        return average

    return [abs(exchange().numpy()[1] - 1e-3) < 1e-9 for _ in range(steps)]


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(float_every=3), [0, 0, 1, 0, 0, 1, 0]),
        (dict(float_every=(4, 2)), [0, 0, 1, 1, 0, 0, 1]),
        (dict(warmup_steps=2), [1, 1, 0, 0, 0, 0, 0]),
        (dict(warmup_steps=1, float_every=4), [1, 0, 0, 1, 0, 0, 0]),
        (dict(float_every=1), [1] * 7),
    ],
)
def test_exchanges_in_float(options, expected):
    assert _is_float(tg.TernGrad(seed=1, **options), 7) == expected


def test_exchanges_in_float_take_sparse_gradients_too():
    variables = [tf.Variable(tf.zeros([9, 2])), tf.Variable(tf.zeros([5]))]
    slices = tf.IndexedSlices(
        tf.ones([2, 2]), tf.constant([7, 1]), tf.constant([9, 2])
    )
    compression = tg.TernGrad(clip_factor=None, float_every=2)
    counter = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def exchange():
        rows, dense = tg.exchange(
            [slices, tf.fill([5], 3.0)], variables, compression, step=counter
        )
        return tf.convert_to_tensor(rows), dense

    for _ in range(4):
        rows, dense = exchange()
        np.testing.assert_array_equal(np.nonzero(rows.numpy()[:, 0])[0], [1, 7])
        np.testing.assert_array_equal(rows.numpy()[[1, 7]], np.ones([2, 2]))
        np.testing.assert_array_equal(dense, np.full([5], 3.0))
    assert counter.numpy() == 4


def test_gradient_of_another_shape():
    with pytest.raises(ValueError) as error:
        tg.exchange(
            [tf.zeros([2, 3])],
            [tf.Variable(tf.zeros([3, 2]), name="w")],
            tg.TernGrad(),
        )
    assert str(error.value) == (
        "Invalid shape of the gradient of w. Expected (3, 2). Received: (2, 3)"
    )
