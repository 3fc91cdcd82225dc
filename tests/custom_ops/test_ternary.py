"""The ternary ops against NumPy, and the fallback against the ops."""

import numpy as np
import pytest
import tensorflow as tf

import custom_ops
from tests import reference

WORKERS = [1, 2, 3, 4, 9, 11, 64, 127]
DTYPES = [np.float32, np.float64, np.float16, tf.bfloat16.as_numpy_dtype]


def _gradients(dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(), (0,), (1,), (5, 3), (31,), (32,), (700,), (3, 3, 7, 33)]
    return [random.normal(size=s).astype(dtype) for s in shapes]


def _shapes(gradients):
    return [tf.constant(g.shape, tf.int64) for g in gradients]


def _encode(gradients, scalers, clip_levels=None, **changes):
    options = dict(
        tensor_ids=list(range(len(gradients))),
        bucket_size=0,
        num_workers=2,
        rank=0,
        seed=1,
    )
    options.update(changes)
    step = options.pop("step", 0)
    return custom_ops.ternary_encode(
        gradients,
        scalers if clip_levels is None else clip_levels,
        scalers,
        tf.constant(step, tf.int64),
        **options,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bucket_size", [0, 1, 7, 64])
@pytest.mark.parametrize("clip_factor", [None, 0.5, 2.5])
def test_scalers_are_those_of_numpy(
    implementation, dtype, bucket_size, clip_factor
):
    gradients = _gradients(dtype)
    received = custom_ops.ternary_scalers(gradients, clip_factor, bucket_size)
    expected = np.concatenate(
        [reference.scalers(g, clip_factor, bucket_size) for g in gradients]
    )
    wide = tf.float64 if dtype == np.float64 else tf.float32
    assert received.dtype == wide
    if implementation == "c++":
        np.testing.assert_array_equal(received, expected)
    else:  # TensorFlow sums in another order
        np.testing.assert_allclose(received, expected, rtol=1e-7)


def test_scalers_travel_rounded_up(implementation):
    gradients = _gradients()[-1:]
    scaler = custom_ops.ternary_scalers(gradients, 1.0, 0).numpy()[0]
    sigma = reference.sigma(gradients[0].reshape(-1))
    assert float(scaler) >= sigma
    assert float(np.nextafter(scaler, np.float32(0))) < sigma


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 350, 699])
@pytest.mark.parametrize("bucket_size", [0, 64])
def test_a_bucket_that_is_not_finite_has_an_infinite_scaler(
    implementation, bad, position, bucket_size
):
    gradient = _gradients()[6]
    gradient[position] = bad
    scalers = custom_ops.ternary_scalers([gradient], 2.5, bucket_size).numpy()
    bucket = position // bucket_size if bucket_size else 0
    infinite = np.flatnonzero(np.isinf(scalers)).tolist()
    assert infinite == [bucket]
    decoded = custom_ops.ternary_decode(
        _encode([gradient], scalers, bucket_size=bucket_size, num_workers=1)[0],
        scalers,
        _shapes([gradient]),
        [tf.float32],
        bucket_size=bucket_size,
        num_workers=1,
    )[0].numpy()
    part = reference.buckets(gradient, bucket_size)[bucket]
    assert np.isnan(decoded[part]).all()
    decoded[part] = 0
    assert np.isfinite(decoded).all()


def test_scalers_of_constant_tensors_are_not_clipped(implementation):
    # Its sigma is rounding noise: clipping there would stop training.
    gradient = np.full([100], 3.0, np.float32)
    gradient[0] = np.nextafter(np.float32(3), np.float32(4))
    scalers = custom_ops.ternary_scalers([gradient], 2.5, 0)
    assert scalers.numpy()[0] == gradient[0]


def test_all_zero_gradients_send_zeros(implementation):
    gradients = [np.zeros([100], np.float32), np.zeros([0], np.float32)]
    scalers = custom_ops.ternary_scalers(gradients, 2.5, 0)
    assert scalers.numpy().tolist() == [0, 0]
    payload, counts = _encode(gradients, scalers)
    assert counts.numpy().tolist() == [[0, 0], [0, 0]]
    decoded = custom_ops.ternary_decode(
        payload + payload,
        scalers,
        _shapes(gradients),
        [tf.float32] * 2,
        bucket_size=0,
        num_workers=2,
    )
    assert not decoded[0].numpy().any() and decoded[1].shape == (0,)


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("bucket_size", [0, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_payload_is_that_of_numpy(compiled, num_workers, bucket_size, dtype):
    gradients = _gradients(dtype)
    options = dict(seed=-3, step=2**33 + 5, rank=7)
    scalers = custom_ops.ternary_scalers(gradients, 2.5, bucket_size).numpy()
    clip_levels = scalers * np.float32(0.75)
    shared = scalers * np.float32(1.5)
    payload, (num_nonzero, _) = _encode(
        gradients,
        shared,
        clip_levels,
        bucket_size=bucket_size,
        num_workers=num_workers,
        tensor_ids=[3 * i for i in range(len(gradients))],
        **options,
    )
    words, nonzero, first = [], [], 0
    for i, gradient in enumerate(gradients):
        last = first + reference.num_buckets(gradient.size, bucket_size)
        signs = reference.levels(
            gradient,
            clip_levels[first:last],
            shared[first:last],
            bucket_size,
            tensor=3 * i,
            **options,
        )
        first = last
        words.append(reference.pack(signs, num_workers))
        nonzero.append(np.count_nonzero(signs))
    expected = np.concatenate(words + [[1]])
    np.testing.assert_array_equal(payload, expected)
    assert num_nonzero.numpy().tolist() == nonzero


def _lengths():
    around_words = {
        k * d + offset
        for d in (40, 27, 22, 15)
        for k in (1, 2, 16, 20)
        for offset in (-1, 0, 1)
    }
    return sorted(set(range(201)) | around_words | {8191, 8192, 8193, 20001})


def _words_of(sums, num_workers):
    """What all workers' words add up to, from the sums they stand for."""
    base = 2 * num_workers + 1
    digits = reference.digits_per_word(num_workers)
    words = []
    for first in range(0, len(sums), digits):
        part = sums[first : first + digits]
        words.append(
            sum((int(s) + num_workers) * base**i for i, s in enumerate(part))
        )
    return np.array(words + [num_workers], np.uint64).view(np.int64)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_decode_inverts_every_sum_at_every_length(compiled, num_workers):
    random = np.random.default_rng(num_workers)
    for length in _lengths():
        sums = random.integers(-num_workers, num_workers + 1, size=length)
        decoded = custom_ops.ternary_decode(
            _words_of(sums, num_workers),
            tf.constant([float(num_workers)]),
            [tf.constant([length], tf.int64)],
            [tf.float32],
            bucket_size=0,
            num_workers=num_workers,
        )[0]
        np.testing.assert_array_equal(decoded, sums)


@pytest.mark.parametrize("num_workers", WORKERS)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("length", [1, 26, 27, 28, 500])
def test_extreme_sums_do_not_overflow(
    implementation, num_workers, sign, length
):
    gradient = np.full([length], 2.0 * sign, np.float32)
    scalers = custom_ops.ternary_scalers([gradient], None, 0)
    total = tf.zeros([], tf.int64)
    for rank in range(num_workers):
        total += _encode(
            [gradient], scalers, num_workers=num_workers, rank=rank
        )[0]
    decoded = custom_ops.ternary_decode(
        total,
        scalers,
        _shapes([gradient]),
        [tf.float32],
        bucket_size=0,
        num_workers=num_workers,
    )[0]
    ratio = np.float32(2.0) / np.float32(num_workers)
    expected = np.float32(sign * num_workers) * ratio
    np.testing.assert_array_equal(decoded, np.full([length], expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_workers", [1, 3, 11, 127])
def test_decoded_value_is_one_division_one_product_one_rounding(
    compiled, dtype, num_workers
):
    sums = np.arange(-num_workers, num_workers + 1)
    scaler = 0.37 if dtype == np.float64 else float(np.float32(0.37))
    wide = np.float64 if dtype == np.float64 else np.float32
    decoded = custom_ops.ternary_decode(
        _words_of(sums, num_workers),
        tf.constant([scaler], wide),
        [tf.constant([len(sums)], tf.int64)],
        [tf.as_dtype(dtype)],
        bucket_size=0,
        num_workers=num_workers,
    )[0]
    ratio = wide(scaler) / wide(num_workers)
    if dtype in (np.float32, np.float64):
        expected = sums.astype(wide) * ratio
    else:
        # The product is exact in float64, and rounded once.
        expected = [_round_once(s * float(ratio), dtype) for s in sums]
    np.testing.assert_array_equal(decoded.numpy(), np.array(expected, dtype))


def _round_once(value, dtype):
    """The nearest 16-bit float, ties to even, by search."""
    guess = np.array(value, np.float32).astype(dtype)
    bits = guess.view(np.uint16).astype(np.int64)
    near = [
        np.array(bits + d, np.uint16).view(dtype)
        for d in (-1, 0, 1)
        if 0 <= bits + d < 2**16
    ]
    near = [n for n in near if np.isfinite(n.astype(np.float64))]
    return min(
        near,
        key=lambda n: (
            abs(float(n) - value),
            int(n.view(np.uint16)) & 1,
        ),
    )


@pytest.mark.parametrize("num_workers", [1, 2, 4, 64])
def test_fallback_decodes_the_same_bits(compiled, monkeypatch, num_workers):
    gradients = _gradients()
    scalers = custom_ops.ternary_scalers(gradients, 2.5, 50)
    options = dict(bucket_size=50, num_workers=num_workers)
    total = tf.zeros([], tf.int64)
    for rank in range(num_workers):
        total += _encode(gradients, scalers, rank=rank, **options)[0]
    arguments = (total, scalers, _shapes(gradients), [tf.float32] * 8)
    compiled_result = custom_ops.ternary_decode(*arguments, **options)
    monkeypatch.setattr("custom_ops.library.ops", lambda: None)
    for ours, theirs in zip(
        custom_ops.ternary_decode(*arguments, **options),
        compiled_result,
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_levels_are_unbiased(implementation):
    # z-test on 64 elements at once: |z| < 5.5 fails once in 4e5 runs if it is
    # right, and always if a probability is off by 2 %.
    random = np.random.default_rng(1)
    gradient = random.uniform(-1, 1, size=64).astype(np.float32)
    gradient[:4] = [1.0, -1.0, 0.0, 1e-3]
    copies = np.tile(gradient, 4000)
    scaler = np.array([1.25], np.float32)
    payload, (num_nonzero, _) = _encode([copies], scaler, num_workers=1)
    levels = custom_ops.ternary_decode(
        payload,
        scaler,
        _shapes([copies]),
        [tf.float32],
        bucket_size=0,
        num_workers=1,
    )[0].numpy()
    assert np.count_nonzero(levels) == num_nonzero.numpy()[0]
    assert set(np.unique(levels)) <= {-1.25, 0.0, 1.25}
    levels = levels.reshape(4000, 64)
    variance = 1.25 * np.abs(gradient) - gradient**2
    z = (levels.mean(axis=0) - gradient) / np.sqrt(variance / 4000 + 1e-30)
    assert np.abs(z).max() < 5.5
    # Var of a sample variance is at most E x^4 / n <= s^3 |g| / n.
    spread = np.sqrt(1.25**3 * np.abs(gradient) / 4000 + 1e-30)
    z = (levels.var(axis=0) - variance) / spread
    assert np.abs(z).max() < 5.5


def test_levels_have_their_frequencies(compiled):
    # Chi-square over 25 magnitudes, of both signs: three levels each, so 50
    # degrees of freedom; above 110 once in a million runs, were it not seeded.
    count, magnitudes = 4000, np.linspace(0.02, 0.98, 25)
    signed = np.concatenate([magnitudes, -magnitudes])
    gradient = np.repeat(signed, count).astype(np.float32)
    scaler = np.ones([1], np.float32)
    payload, _ = _encode([gradient], scaler, num_workers=1, seed=11)
    (levels,) = custom_ops.ternary_decode(
        payload,
        scaler,
        _shapes([gradient]),
        [tf.float32],
        bucket_size=0,
        num_workers=1,
    )
    levels = levels.numpy().reshape(50, count)
    statistic = 0.0
    for value, row in zip(signed, levels, strict=True):
        assert not np.any(row == -np.sign(value))
        fired = np.count_nonzero(row)
        for seen, p in ((fired, abs(value)), (count - fired, 1 - abs(value))):
            statistic += (seen - count * p) ** 2 / (count * p)
    assert 12 < statistic < 110


def test_probability_is_exact_beyond_eight_bits(compiled):
    # |g| / s = 2^-14: 8 random bits alone would send either all or none of
    # the elements whose first byte is 0. Expected 1024, sigma 32.
    gradient = np.full([1 << 24], 2.0**-14, np.float32)
    scaler = np.array([1.0], np.float32)
    _, (num_nonzero, _) = _encode([gradient], scaler)
    assert abs(int(num_nonzero[0]) - 1024) < 5.5 * 32


def _signs(gradient, **changes):
    scaler = custom_ops.ternary_scalers([gradient], None, 0)
    payload = _encode([gradient], scaler, num_workers=1, **changes)[0]
    return reference.unpack(payload.numpy()[:-1], gradient.size, 1)


@pytest.mark.parametrize(
    "change",
    [dict(seed=2), dict(step=1), dict(rank=1), dict(tensor_ids=[1])],
    ids=["seed", "step", "rank", "tensor"],
)
def test_streams_are_independent(implementation, change):
    # Correlation of two independent streams of n signs has sigma 1/sqrt(n).
    gradient = np.full([40000], 0.5, np.float32)
    gradient[0] = 1.0
    first, second = _signs(gradient), _signs(gradient, **change)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5.5 / np.sqrt(40000)
    np.testing.assert_array_equal(first, _signs(gradient))


def test_result_does_not_depend_on_the_list(compiled):
    # The random bits of a tensor are its own: alone or among others.
    gradients = _gradients()
    scalers = custom_ops.ternary_scalers(gradients, 2.5, 0)
    together = _encode(gradients, scalers)[0].numpy()
    alone = [
        _encode([g], scalers[i : i + 1], tensor_ids=[i])[0].numpy()[:-1]
        for i, g in enumerate(gradients)
    ]
    np.testing.assert_array_equal(together, np.concatenate(alone + [[1]]))


def test_clipped_elements_are_counted(implementation):
    gradient = np.array([1, -2, 3, -4, 0], np.float32)
    level = np.array([2.5], np.float32)
    _, (_, num_clipped) = _encode([gradient], level)
    assert num_clipped.numpy().tolist() == [2]


@pytest.mark.parametrize("guard", [0, 1, 3])
def test_a_payload_that_is_no_sum_is_refused(compiled, guard):
    gradient = np.ones([10], np.float32)
    scalers = custom_ops.ternary_scalers([gradient], None, 0)
    payload = 2 * _encode([gradient], scalers)[0].numpy()
    payload[-1] = guard
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        custom_ops.ternary_decode(
            payload,
            scalers,
            _shapes([gradient]),
            [tf.float32],
            bucket_size=0,
            num_workers=2,
        )
    assert (
        "The payload is not the sum over all workers: its guard word is "
        f"{guard}, expected 2. Ternary payloads must be added with op=Sum "
        "over all workers, without pre- or postscaling, and no worker may "
        "have joined early."
    ) in str(error.value)


def test_fallback_refuses_a_payload_that_is_no_sum(monkeypatch):
    monkeypatch.setattr("custom_ops.library.ops", lambda: None)
    gradient = np.ones([10], np.float32)
    scalers = custom_ops.ternary_scalers([gradient], None, 0)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="its guard word is not 2"
    ):
        custom_ops.ternary_decode(
            _encode([gradient], scalers)[0],
            scalers,
            _shapes([gradient]),
            [tf.float32],
            bucket_size=0,
            num_workers=2,
        )


def test_wrong_lengths_are_refused(compiled):
    gradient = np.ones([10], np.float32)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="Invalid length of `scalers`. Expected 1. Received: 2.",
    ):
        _encode([gradient], np.ones([2], np.float32), np.ones([1], np.float32))
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match="Invalid length of `payload`. Expected 2. Received: 3.",
    ):
        custom_ops.ternary_decode(
            np.ones([3], np.int64),
            np.ones([1], np.float32),
            _shapes([gradient]),
            [tf.float32],
            bucket_size=0,
            num_workers=2,
        )


def test_runs_in_a_graph_of_unknown_shapes(implementation):
    @tf.function(
        input_signature=[tf.TensorSpec(None, tf.float32)], jit_compile=False
    )
    def round_trip(gradient):
        scalers = custom_ops.ternary_scalers([gradient], None, 0)
        payload = _encode([gradient], scalers, num_workers=1)[0]
        return custom_ops.ternary_decode(
            payload,
            scalers,
            [tf.shape(gradient, tf.int64)],
            [tf.float32],
            bucket_size=0,
            num_workers=1,
        )[0]

    for shape in [(), (0, 3), (41,), (2, 3, 4)]:
        gradient = np.ones(shape, np.float32)
        np.testing.assert_array_equal(round_trip(gradient), gradient)


# --- trits -------------------------------------------------------------------


def _trit_gradients():
    random = np.random.default_rng(4)
    shapes = [(), (0,), (1,), (159,), (160,), (161,), (8, 8, 3, 33)]
    return [random.normal(size=s).astype(np.float32) for s in shapes]


def test_trits_are_those_of_numpy(compiled):
    gradients = _trit_gradients()
    scalers = custom_ops.ternary_scalers(gradients, 2.5, 0).numpy()
    stream = dict(seed=9, step=5, rank=3)
    payload, (num_nonzero, _) = _encode(
        gradients, scalers, trits=True, **stream
    )
    signs = [
        reference.levels(
            g, scalers[t : t + 1], scalers[t : t + 1], 0, tensor=t, **stream
        )
        for t, g in enumerate(gradients)
    ]
    expected = np.concatenate([reference.pack_trits(s) for s in signs])
    np.testing.assert_array_equal(payload, expected)
    assert num_nonzero.numpy().tolist() == [np.count_nonzero(s) for s in signs]
    assert payload.shape[0] == custom_ops.GROUP_BYTES * sum(
        custom_ops.num_groups(g.size) for g in gradients
    )


@pytest.mark.parametrize(
    "num_workers, dtype",
    [
        (1, np.float32),
        (2, np.float16),
        (3, np.float64),
        (4, tf.bfloat16.as_numpy_dtype),
        (9, np.float32),
        (127, np.float32),
        (130, np.float32),  # more than a byte's sums hold
    ],
)
def test_layouts_decode_to_the_same_bits(implementation, num_workers, dtype):
    gradients = [np.asarray(g).astype(dtype) for g in _trit_gradients()]
    if num_workers > 9:
        gradients = gradients[-2:-1]
    bucket_size = 37
    scalers = custom_ops.ternary_scalers(gradients, None, bucket_size)
    options = dict(bucket_size=bucket_size, num_workers=num_workers)
    words, trits = [], []
    for rank in range(num_workers):
        words.append(_encode(gradients, scalers, rank=rank, **options)[0])
        trits.append(
            _encode(gradients, scalers, rank=rank, trits=True, **options)[0]
        )
    parts = tf.concat(trits, axis=0)
    sums = custom_ops.ternary_sum_trits(parts, num_workers)
    groups = sum(custom_ops.num_groups(g.size) for g in gradients)
    assert sums.shape[0] == custom_ops.num_words(160 * groups, num_workers)
    decoded = [
        custom_ops.ternary_decode(
            payload,
            scalers,
            _shapes(gradients),
            [g.dtype for g in gradients],
            layout=layout,
            **options,
        )
        for payload, layout in (
            (tf.add_n(words), "sum"),
            (parts, "gathered"),
            (sums, "sum_of_trits"),
            # Shards are padded: more words may follow.
            (tf.pad(sums, [[0, 5]]), "sum_of_trits"),
        )
    ]
    for other in decoded[1:]:
        for expected, received in zip(decoded[0], other, strict=True):
            assert received.dtype == expected.dtype
            assert received.numpy().tobytes() == expected.numpy().tobytes()
    assert tf.math.count_nonzero(decoded[0][-1]) > 0


@pytest.mark.parametrize("layout", ["sum", "gathered", "sum_of_trits"])
@pytest.mark.parametrize("num_parts", [1, 2, 5, 17])
def test_parts_are_the_whole(implementation, layout, num_parts):
    # 40: more parts than groups in most tensors, some parts empty of them.
    gradients = _trit_gradients()
    num_workers, bucket_size = 2, 100
    scalers = custom_ops.ternary_scalers(gradients, 2.5, bucket_size)
    trits = layout != "sum"

    def exchange(num_parts):
        counts, averages, lengths = None, None, []
        for part in range(num_parts):
            options = dict(
                bucket_size=bucket_size,
                num_workers=num_workers,
                part=part,
                num_parts=num_parts,
            )
            payload, counts = _encode(
                gradients, scalers, trits=trits, counts=counts, **options
            )
            lengths.append(tf.size(payload))
            payload = tf.tile(payload, [2]) if trits else payload * 2
            if layout == "sum_of_trits":
                payload = custom_ops.ternary_sum_trits(payload, num_workers)
            averages = custom_ops.ternary_decode(
                payload,
                scalers,
                _shapes(gradients),
                [tf.float32] * len(gradients),
                layout=layout,
                before=averages,
                **options,
            )
        return counts, averages, lengths

    # In a graph, memory of averages passes on. (Folding many fallbacks takes
    # TensorFlow minutes.)
    in_graph = implementation == "c++" and num_parts != 2
    run = tf.function(exchange) if in_graph else exchange
    counts, averages, lengths = run(num_parts)
    whole_counts, whole, _ = exchange(1)
    np.testing.assert_array_equal(counts, whole_counts)
    for received, expected in zip(averages, whole, strict=True):
        np.testing.assert_array_equal(received, expected)
    sizes = [g.size for g in gradients]
    for part, length in enumerate(lengths):
        inside = custom_ops.part_sizes(sizes, part, num_parts)
        if trits:
            groups = sum(map(custom_ops.num_groups, inside))
            assert length == groups * custom_ops.GROUP_BYTES
        else:
            words = sum(custom_ops.num_words(n, num_workers) for n in inside)
            assert length == words + 1
        assert abs(sum(inside) - sum(sizes) / num_parts) < 160 * len(sizes)


def test_earlier_parts_stay_as_they_were(implementation):
    gradients = [np.ones([1000], np.float32)]
    options = dict(bucket_size=0, num_workers=1, part=1, num_parts=2)
    payload, _ = _encode(gradients, np.ones([1], np.float32), **options)
    before = tf.fill([1000], 7.0)
    (decoded,) = custom_ops.ternary_decode(
        payload,
        np.ones([1], np.float32),
        _shapes(gradients),
        [tf.float32],
        before=[before],
        **options,
    )
    split = custom_ops.part_sizes([1000], 0, 2)[0]
    assert split == 480
    assert np.all(decoded[:split] == 7.0) and np.all(decoded[split:] == 1.0)
    assert np.all(before == 7.0)


def test_parts_that_do_not_exist_are_refused(compiled):
    gradients = [np.ones([10], np.float32)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="`part`.*: 2"):
        _encode(gradients, np.ones([1], np.float32), part=2, num_parts=2)


def test_before_of_another_shape_is_refused(compiled):
    scaler = np.ones([1], np.float32)
    payload, _ = _encode([np.ones([10], np.float32)], scaler, num_workers=1)
    for before in (tf.ones([11]), tf.ones([10], tf.float64)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`before`"):
            custom_ops.ternary_decode(
                payload,
                scaler,
                [tf.constant([10], tf.int64)],
                [tf.float32],
                bucket_size=0,
                num_workers=1,
                before=[before],
            )


def test_sum_of_shards_is_the_sum_of_all(implementation):
    # 27 groups fill whole words for two workers.
    random = np.random.default_rng(5)
    parts = random.integers(0, 243, [2, 2, 27 * 32]).astype(np.uint8)
    whole = custom_ops.ternary_sum_trits(parts.reshape(-1), 2)
    shards = [
        custom_ops.ternary_sum_trits(parts[:, i].reshape(-1), 2)
        for i in range(2)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(shards))


def test_length_of_gathered_payloads(implementation):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        custom_ops.ternary_decode(
            tf.zeros([96], tf.uint8),
            tf.ones([1]),
            _shapes([np.zeros([161])]),
            [tf.float32],
            bucket_size=0,
            num_workers=2,
            layout="gathered",
        )
    assert "Invalid length of `payload`." in str(error.value)


def test_length_of_parts(compiled):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        custom_ops.ternary_sum_trits(tf.zeros([96], tf.uint8), 2)
    assert (
        "Invalid length of `parts`. Expected a multiple of 64 (2 workers, "
        "groups of 32 bytes). Received: 96."
    ) in str(error.value)
