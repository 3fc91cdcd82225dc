"""Horovod's Compressor interface, with one worker."""

import numpy as np
import pytest
import tensorflow as tf

import custom_ops
import tf_terngrad as tg


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 50)])
def test_ternary_round_trip(shape, dtype):
    g = tf.cast(np.random.default_rng(0).normal(size=shape), dtype)
    compressor = tg.HorovodTernGrad(tg.TernGrad(clip_factor=None))
    payload, context = compressor.compress(g)
    assert payload.dtype == tf.int64
    back = compressor.decompress(payload, context)
    assert back.dtype == dtype and back.shape == shape
    if g.shape.num_elements():
        s = np.abs(g.numpy()).max()
        assert set(np.unique(np.abs(back))) <= {0.0, s}


def test_every_call_has_its_own_random_bits():
    compressor = tg.HorovodTernGrad(tg.TernGrad(clip_factor=None))
    g = tf.constant([1.0] + [0.5] * 500)
    results = []
    for _ in range(3):
        results.append(compressor.decompress(*compressor.compress(g)).numpy())
    assert (results[0] != results[1]).any()
    assert (results[1] != results[2]).any()


@pytest.mark.parametrize("in_graph", [False, True])
def test_wrong_guard_word(in_graph):
    def average():
        compressor = tg.Compression.terngrad
        payload, context = compressor.compress(tf.ones([5]))
        return compressor.decompress(payload // 2, context)

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        (tf.function(average) if in_graph else average)()
    expected = {
        "c++": "is 0, expected 1. Ternary payloads must be added with op=Sum "
        "over all workers, without pre- or postscaling, and no worker may "
        "have joined early.",
        "fallback": "is not 1.",
    }[custom_ops.status()["implementation"]]
    assert (
        "The payload is not the sum over all workers: its guard word "
        + expected
    ) in error.value.message


@pytest.mark.parametrize(
    "compressor, wire",
    [(tg.Compression.none, tf.float32), (tg.Compression.fp16, tf.float16)],
)
def test_float_compressors(compressor, wire):
    g = tf.constant([1.0, -0.25])
    compressed, context = compressor.compress(g)
    assert compressed.dtype == wire
    back = compressor.decompress(compressed, context)
    assert back.dtype == tf.float32
    np.testing.assert_array_equal(back, g)


def test_float_compressors_leave_integers():
    g = tf.constant([2**30 + 1])
    compressed, context = tg.Compression.fp16.compress(g)
    assert compressed.dtype == tf.int32
    np.testing.assert_array_equal(
        tg.Compression.fp16.decompress(compressed, context), g
    )
