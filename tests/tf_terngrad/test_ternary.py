"""TernGrad's equations in plain TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg

# Two-sided z-tests at 5 standard errors fail with probability 6e-7 for one
# value under the hypothesis; the seeds are fixed, so they fail never or always.
Z = 5.0


def _normal(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("factor", [0.5, 2.5])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(tf.float64, 1e-12), (tf.float32, 1e-6), (tf.float16, 1e-3)],
)
def test_clip_bound_is_factor_times_sigma_about_the_mean(
    dtype, tolerance, factor
):
    # The mean is far from 0: sqrt(mean(g^2)) would be another bound.
    g = tf.constant(_normal([500]) + 3.0, dtype)
    level = factor * np.std(g.numpy().astype(np.float64))

    clipped = tg.clip(g, factor).numpy().astype(np.float64)

    expected = np.clip(g.numpy().astype(np.float64), -level, level)
    np.testing.assert_allclose(clipped, expected, rtol=tolerance)
    assert np.max(np.abs(clipped)) < np.max(np.abs(g.numpy()))


def test_clip_keeps_elements_within_the_bound():
    g = tf.constant(_normal([1000]))
    inside = np.abs(g) <= 2.5 * np.std(g.numpy().astype(np.float64))
    np.testing.assert_array_equal(tg.clip(g, 2.5)[inside], g[inside])
    assert not inside.all()


@pytest.mark.parametrize("size, clips", [(1, False), (31, False), (32, True)])
def test_clip_leaves_small_tensors_alone(size, clips):
    g = np.zeros(size, np.float32)
    g[0] = 1.0
    changed = tg.clip(tf.constant(g), 0.1).numpy()[0] != 1.0
    assert changed == clips


@pytest.mark.parametrize("spread, clips", [(2.0**-22, False), (2.0**-18, True)])
def test_clip_leaves_nearly_constant_tensors_alone(spread, clips):
    # Half the elements 1 + 2 spread, half 1: sigma is the spread.
    g = tf.constant([1.0, 1.0 + 2 * spread] * 32, tf.float64)
    changed = bool(tf.reduce_any(tg.clip(g, 2.5) != g))
    assert changed == clips


def test_bias_of_one_element_keeps_its_gradient():
    g = tf.constant([0.3])
    assert tg.scaler(g, 2.5).numpy() == g.numpy()[0]
    assert tg.ternarize(g, tg.scaler(g, 2.5), seed=(0, 0)).numpy() == g.numpy()


def test_clip_factor_none_changes_nothing():
    g = tf.constant(_normal([100]))
    np.testing.assert_array_equal(tg.clip(g, None), g)


@pytest.mark.parametrize("clip_factor", [None, 2.5])
@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (3, 5), (4, 4, 4), (0,), (3, 0)]
)
def test_scaler_is_the_largest_magnitude(shape, clip_factor):
    g = tf.constant(_normal(shape))
    scaler = tg.scaler(g, clip_factor)
    assert scaler.shape == ()
    assert scaler.dtype == g.dtype
    clipped = tg.clip(g, clip_factor).numpy()
    assert scaler.numpy() == (
        np.max(np.abs(clipped)) if g.shape.num_elements() else 0.0
    )


@pytest.mark.parametrize("clip_factor", [None, 2.5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 20, 39])
def test_non_finite_element_makes_the_scaler_infinite(
    position, bad, clip_factor
):
    g = _normal([40])
    g[position] = bad
    scaler = tg.scaler(tf.constant(g), clip_factor)
    assert scaler.numpy() == np.inf
    assert np.isnan(tg.ternarize(tf.constant(g), scaler, seed=(0, 0))).all()


def test_zero_gradient():
    g = tf.zeros([50])
    assert tg.scaler(g, 2.5).numpy() == 0.0
    np.testing.assert_array_equal(tg.ternarize(g, tg.scaler(g), (0, 0)), g)


@pytest.mark.parametrize(
    "dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64]
)
def test_ternarize_has_three_levels(dtype):
    g = tf.constant(_normal([1000]), dtype)
    s = tg.scaler(g)
    t = tg.ternarize(g, s, seed=(0, 1))
    assert t.dtype == dtype
    levels = set(t.numpy().astype(np.float64).tolist())
    s = float(s)
    assert levels == {-s, 0.0, s}
    # A level never has the wrong sign.
    assert (np.sign(t.numpy()) * np.sign(g.numpy()) >= 0).all()


def test_ternarize_is_unbiased_with_the_stated_variance():
    g = np.linspace(-1.0, 1.0, 41)
    s = 1.25
    draws = 40_000
    t = tg.ternarize(
        tf.constant(np.tile(g, (draws, 1))), tf.constant(s, tf.float64), (3, 4)
    ).numpy()

    variance = s * np.abs(g) - g**2  # of one draw
    z = (t.mean(axis=0) - g) / np.sqrt(np.maximum(variance, 1e-12) / draws)
    # 41 values: fails with probability 3e-5 for a random seed.
    assert np.max(np.abs(z)) < Z

    # b is a Bernoulli variable, so the fourth central moment is known.
    p = np.abs(g) / s
    fourth = s**4 * p * (1 - p) * (1 - 3 * p + 3 * p * p)
    spread = np.sqrt(np.maximum(fourth - variance**2, 1e-12) / draws)
    z = (t.var(axis=0) - variance) / spread
    # Where p is about 1/2 the spread vanishes and (mean error)^2 leads.
    z = z[np.abs(p - 0.5) > 0.05]
    assert np.max(np.abs(z)) < Z


def test_elements_above_the_scaler_always_fire():
    g = tf.constant([2.0, -3.0] * 500)
    t = tg.ternarize(g, tf.constant(1.0), seed=(0, 0))
    np.testing.assert_array_equal(t, np.sign(g))


def test_ternarize_repeats_for_a_seed_and_differs_between_seeds():
    g = tf.constant(_normal([1000]))
    s = tg.scaler(g)
    first = tg.ternarize(g, s, seed=(1, 2))
    np.testing.assert_array_equal(first, tg.ternarize(g, s, seed=(1, 2)))
    assert (first.numpy() != tg.ternarize(g, s, seed=(1, 3)).numpy()).any()
