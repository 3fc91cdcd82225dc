"""Error feedback of what clipping removed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg

SIZE = 400


def _heavy_tailed(rng, size=SIZE):
    """A few elements far beyond 2.5 sigma."""
    g = rng.normal(size=size)
    g[:: size // 4] *= 30.0
    return g


def _exchanger(compression, variable, feedback):
    counter = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def exchange(g):
        (average,) = tg.exchange(
            [g], [variable], compression, step=counter, feedback=feedback
        )
        return average

    return exchange


@pytest.mark.parametrize("bucket_size", [None, 64])
def test_keeps_what_clipping_removed(bucket_size):
    variable = tf.Variable(tf.zeros([20, 20]))
    feedback = tg.ErrorFeedback([variable])
    compression = tg.TernGrad(bucket_size=bucket_size, error_feedback=True)
    exchange = _exchanger(compression, variable, feedback)
    rng = np.random.default_rng(0)
    residual = np.zeros([20, 20], np.float32)
    for _ in range(5):
        g = _heavy_tailed(rng).astype(np.float32).reshape(20, 20)
        exchange(tf.constant(g))
        total = g + residual
        level = np.float32(2.5 * np.std(total.astype(np.float64)))
        expected = total - np.clip(total, -level, level)
        residual = feedback.residuals[0][0].numpy()
        np.testing.assert_allclose(residual, expected, rtol=1e-4, atol=1e-4)
        assert np.count_nonzero(residual) >= 1


def test_stays_bounded_over_1000_steps():
    variable = tf.Variable(tf.zeros([SIZE]))
    feedback = tg.ErrorFeedback([variable])
    exchange = _exchanger(tg.TernGrad(error_feedback=True), variable, feedback)
    rng = np.random.default_rng(1)
    norms = []
    for _ in range(1000):
        g = _heavy_tailed(rng)
        exchange(tf.constant(g, tf.float32))
        norms.append(float(tf.norm(feedback.residuals[0][0])))
    # Not growing: the last hundred look as the first hundred did.
    assert max(norms) < 500.0
    assert np.mean(norms[-100:]) < 2.0 * np.mean(norms[100:200])


def test_removes_the_bias_of_clipping():
    # One constant gradient: clipped, its large element loses half; with
    # feedback the mean of what is sent approaches it.
    g = np.ones(SIZE, np.float32)
    g[::2] = -1.0
    g[0] = 8.0
    variable = tf.Variable(tf.zeros([SIZE]))
    feedback = tg.ErrorFeedback([variable])
    exchange = _exchanger(tg.TernGrad(error_feedback=True), variable, feedback)
    sent = np.mean([exchange(tf.constant(g)).numpy() for _ in range(500)], 0)
    plain = _exchanger(tg.TernGrad(), variable, None)
    without = np.mean([plain(tf.constant(g)).numpy() for _ in range(500)], 0)
    assert without[0] == pytest.approx(2.5 * g.std(), rel=0.01)
    assert sent[0] > 2.0 * without[0]
    # What was sent and what is kept make the whole.
    kept = feedback.residuals[0][0].numpy()[0] / 500
    assert sent[0] + kept == pytest.approx(8.0, rel=0.05)


def test_overflow_keeps_what_there_was():
    variable = tf.Variable(tf.zeros([SIZE]))
    feedback = tg.ErrorFeedback([variable])
    exchange = _exchanger(tg.TernGrad(error_feedback=True), variable, feedback)
    g = _heavy_tailed(np.random.default_rng(2)).astype(np.float32)
    exchange(tf.constant(g))
    before = feedback.residuals[0][0].numpy()
    g[3] = np.nan
    assert np.isnan(exchange(tf.constant(g)).numpy()).all()
    np.testing.assert_array_equal(feedback.residuals[0][0].numpy(), before)
    assert np.count_nonzero(before)


def test_exchange_in_float_sends_what_was_kept():
    variable = tf.Variable(tf.zeros([SIZE]))
    feedback = tg.ErrorFeedback([variable])
    compression = tg.TernGrad(error_feedback=True, float_every=2)
    exchange = _exchanger(compression, variable, feedback)
    g = _heavy_tailed(np.random.default_rng(3)).astype(np.float32)
    exchange(tf.constant(g))
    kept = feedback.residuals[0][0].numpy()
    assert np.count_nonzero(kept)
    np.testing.assert_array_equal(exchange(tf.constant(g)), g + kept)
    assert not np.count_nonzero(feedback.residuals[0][0])


def test_needs_a_place_for_its_state():
    with pytest.raises(ValueError) as error:
        tg.exchange(
            [tf.zeros([2])],
            [tf.Variable(tf.zeros([2]))],
            tg.TernGrad(error_feedback=True),
        )
    assert str(error.value) == (
        "Invalid value for argument error_feedback. Expected "
        "tg.exchange(..., feedback=tg.ErrorFeedback(variables)) or "
        "tg.DistributedOptimizer, which keep what clipping removed. Received: "
        "error_feedback=True"
    )


def test_optimizer_keeps_it_outside_its_variables():
    variable = keras.Variable(tf.zeros([SIZE]))
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.SGD(1.0), tg.TernGrad(error_feedback=True)
    )
    g = _heavy_tailed(np.random.default_rng(4)).astype(np.float32)
    optimizer.apply([tf.constant(g)], [variable])
    (residual,) = optimizer.feedback.residuals[0]
    assert np.count_nonzero(residual)
    # Each worker's own: neither broadcast nor compared.
    assert all(v.shape != variable.shape for v in optimizer.variables)


def test_refuses_loss_scaling():
    with pytest.raises(ValueError) as error:
        tg.DistributedOptimizer(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            tg.TernGrad(error_feedback=True),
        )
    assert str(error.value) == (
        "Invalid value for argument compression. Expected error_feedback=False "
        "with LossScaleOptimizer, which changes the scale of gradients between "
        "steps. Received: error_feedback=True"
    )
