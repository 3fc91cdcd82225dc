"""TernGrad and the other compressions as objects."""

import keras
import pytest

import tf_terngrad as tg


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(clip_factor=0),
            "Invalid value for argument clip_factor. Expected a finite number "
            "> 0. Received: clip_factor=0",
        ),
        (
            dict(clip_factor=float("inf")),
            "Invalid value for argument clip_factor. Expected a finite number "
            "> 0. Received: clip_factor=inf",
        ),
        (
            dict(clip_factor=float("nan")),
            "Invalid value for argument clip_factor. Expected a finite number "
            "> 0. Received: clip_factor=nan",
        ),
        (
            dict(clip_factor="2.5"),
            "Invalid value for argument clip_factor. Expected a finite number "
            "> 0. Received: clip_factor='2.5'",
        ),
        (
            dict(clip_mode="owns"),
            "Invalid value for argument clip_mode. Expected one of {'own', "
            "'shared'}. Received: clip_mode='owns'",
        ),
        (
            dict(bucket_size=0),
            "Invalid value for argument bucket_size. Expected an integer >= 1. "
            "Received: bucket_size=0",
        ),
        (
            dict(bucket_size=True),
            "Invalid value for argument bucket_size. Expected an integer >= 1. "
            "Received: bucket_size=True",
        ),
        (
            dict(min_size=-1),
            "Invalid value for argument min_size. Expected an integer >= 0. "
            "Received: min_size=-1",
        ),
        (
            dict(exchange="ring"),
            "Invalid value for argument exchange. Expected one of {'auto', "
            "'allgather', 'allreduce', 'alltoall'}. Received: exchange='ring'",
        ),
        (
            dict(float_every=0),
            "Invalid value for argument float_every. Expected an integer >= 1. "
            "Received: float_every=0",
        ),
        (
            dict(float_every=(2, 3)),
            "Invalid value for argument float_every. Expected (period, length) "
            "with length <= period. Received: (2, 3)",
        ),
        (
            dict(warmup_steps=-1),
            "Invalid value for argument warmup_steps. Expected an integer >= "
            "0. Received: warmup_steps=-1",
        ),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError) as error:
        tg.TernGrad(**arguments)
    assert str(error.value) == message


def test_exempt_is_no_string():
    with pytest.raises(TypeError) as error:
        tg.TernGrad(exempt="*/bias")
    assert str(error.value) == (
        "Invalid type for argument exempt. Expected a tuple of patterns. "
        "Received: exempt='*/bias'"
    )


@pytest.mark.parametrize("num_workers", [0, 1.0, "2"])
def test_number_of_local_workers(num_workers):
    with pytest.raises(ValueError) as error:
        tg.LocalWorkers(num_workers)
    assert str(error.value) == (
        "Invalid value for argument num_workers. Expected an integer >= 1. "
        f"Received: num_workers={num_workers!r}"
    )


@pytest.mark.parametrize(
    "compression",
    [
        tg.TernGrad(),
        tg.TernGrad(
            None,
            "shared",
            7,
            5,
            ["*/bias", "a"],
            "alltoall",
            (9, 2),
            11,
            False,
            -3,
            tg.Link(1e-4, 1e8),
        ),
        tg.NoCompression(),
        tg.FP16(),
    ],
    ids=str,
)
def test_config_round_trip(compression):
    config = keras.saving.serialize_keras_object(compression)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(compression)
    assert copy.get_config() == compression.get_config()
    assert repr(copy) == repr(compression)
    assert len({copy, compression}) == 2  # hashable


def test_agreement_leaves_the_seed_out():
    assert tg.TernGrad(seed=1).agreement() == tg.TernGrad(seed=2).agreement()
    assert tg.TernGrad(clip_factor=2.0).agreement() != tg.TernGrad().agreement()
    assert tg.FP16().agreement() != tg.NoCompression().agreement()


# DESIGN's table: bits per element and worker, for a long tensor.
@pytest.mark.parametrize(
    "exchange, bits",
    [
        ("allgather", {2: 1.6, 4: 4.8, 8: 11.2, 64: 101}),
        ("allreduce", {2: 2.4, 4: 4.8, 8: 7.5, 64: 14.0}),
        ("alltoall", {2: 2.0, 4: 3.6, 8: 5.1, 64: 8.6}),
    ],
)
def test_bits_of_exchanges(exchange, bits):
    size = 10_000_000
    compression = tg.TernGrad(exchange=exchange)
    for num_workers, expected in bits.items():
        sent = compression.bits_sent([size], ["w"], num_workers) / size
        assert sent == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    "num_workers, bits", [(1, 0), (2, 32), (4, 48), (8, 56), (64, 63)]
)
def test_bits_of_float_exchanges(num_workers, bits):
    sizes, paths = [7, 13], ["a", "b"]
    sent = tg.NoCompression().bits_sent(sizes, paths, num_workers) / 20
    assert sent == pytest.approx(bits)
    assert tg.FP16().bits_sent(sizes, paths, num_workers) / 20 == sent / 2


@pytest.mark.parametrize(
    "options, bits",
    [
        # 27 digits a word at N = 2: 100 -> 4 words, 27 -> 1; the guard.
        # Two more entries travel with the scalers.
        (dict(), 64 * (4 + 1 + 1) + 4 * 32),
        (dict(bucket_size=10), 64 * (4 + 1 + 1) + (10 + 3 + 2) * 32),
        (dict(min_size=28), 64 * (4 + 1) + 3 * 32 + 27 * 32),
        (dict(min_size=27), 64 * (4 + 1 + 1) + 4 * 32),
        (dict(exempt=["*a"]), 64 * (1 + 1) + 3 * 32 + 100 * 32),
        (dict(exempt=["*a", "*b"]), 127 * 32),
        (dict(min_size=28, exchange="allgather"), 8 * 32 + 3 * 32 + 27 * 32),
    ],
)
def test_bits_count_scalers_guard_and_floats(options, bits):
    compression = tg.TernGrad(**{"exchange": "allreduce", **options})
    sent = compression.bits_sent([100, 27], ["m/a", "m/b"], 2)
    assert sent == bits  # 2 (N - 1) / N = 1


def test_horovod_compression_refuses_what_needs_names():
    with pytest.raises(ValueError) as error:
        tg.HorovodTernGrad(tg.TernGrad(min_size=3))
    assert str(error.value) == (
        "Invalid value for argument config. Expected a TernGrad without "
        "min_size and exempt: Horovod's Compressor interface does not say "
        "which variable a tensor belongs to. Received: "
        f"config={tg.TernGrad(min_size=3)!r}"
    )


def test_link_is_a_link():
    with pytest.raises(TypeError) as error:
        tg.TernGrad(link=1e9)
    assert str(error.value) == (
        "Invalid type for argument link. Expected tg.Link(...) or None. "
        "Received: link=1000000000.0"
    )
    with pytest.raises(ValueError) as error:
        tg.Link(latency=0.0)
    assert str(error.value) == (
        "Invalid value for argument latency. Expected a finite number > 0. "
        "Received: latency=0.0"
    )


def test_link_of_one_worker_is_the_default():
    assert tg.measure_link() == tg.Link()
