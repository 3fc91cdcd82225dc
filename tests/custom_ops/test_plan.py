"""What is chosen, and that the convolution does it."""

import numpy as np
import pytest
import tensorflow as tf

import custom_ops
from custom_ops import Plan, SparseKernel, library, plan, sparse_conv2d
from tests.custom_ops.sparse_conv_reference import sparse

CONV3 = (3, 3, 256, 384)
IMAGES = (32, 13, 13, 256)


def test_more_zeros_are_faster(compiled):
    plans = [
        plan(CONV3, IMAGES, padding="SAME", density=density, num_threads=2)
        for density in (1.0, 0.5, 0.1, 0.02)
    ]
    times = [p.sparse_ms for p in plans]
    assert times == sorted(times, reverse=True)
    assert len({p.dense_ms for p in plans}) == 1
    assert [p.density for p in plans] == pytest.approx(
        [1, 0.5, 0.1, 0.02], rel=1e-4
    )
    for p in plans:
        assert not p.use_sparse or p.sparse_ms < p.dense_ms
        assert p.use_sparse == (1 - p.density > p.break_even)
        assert p.speed_up == p.dense_ms / p.sparse_ms
        assert p.num_threads == 2
        assert p.pattern == ("dense" if p.density == 1 else "unstructured")
    assert plans[0].kernel == "dense"
    assert plans[-1].kernel in custom_ops.status()["sparse_conv"]["kernels"]


def test_of_a_kernel(compiled):
    kernel = np.zeros((1, 1, 64, 64), np.float32)
    kernel[:, :, :8] = 1
    found = plan(SparseKernel.from_dense(kernel), (8, 28, 28, 64))
    assert (found.pattern, found.density) == ("columns", 0.125)
    assert found.isa == custom_ops.status()["sparse_conv"]["isa"]
    assert found.prepared_bytes > 0


def test_text(compiled):
    found = Plan(
        "avx2", True, "unstructured", 0.1, 1.5, 6.0, 0.25, "avx2", 2, 0, 0
    )
    assert str(found) == (
        "avx2: 90.0% zeros, unstructured; modelled 1.500 ms sparse, 6.000 ms "
        "dense (4.00x), 2 thread(s); sparse is faster from 25% zeros on"
    )


def test_without_the_library_it_is_dense(monkeypatch):
    monkeypatch.setattr(library, "ops", lambda: None)
    found = plan(CONV3, IMAGES, density=0.1)
    assert (found.kernel, found.use_sparse) == ("dense", False)
    assert found.sparse_ms is found.dense_ms is found.break_even is None
    assert str(found).startswith("dense: 90.0% zeros, unstructured; ")


def test_the_convolution_does_what_the_plan_says(compiled):
    """Seen by a NaN, which only the dense convolution spreads."""
    random = np.random.default_rng(0)
    x = np.ones((16, 14, 14, 64), np.float32)
    x[0, 0, 0, 0] = np.nan
    seen = set()
    for density in (0.01, 0.95):
        dense = sparse(random, (3, 3, 64, 64), density)
        dense[:, :, 0] = 0
        kernel = SparseKernel.from_dense(dense)
        use_sparse = plan(kernel, x.shape).use_sparse
        for convolve in (sparse_conv2d, tf.function(sparse_conv2d)):
            y = convolve(tf.constant(x), kernel)
            assert np.isnan(y).any() == (not use_sparse)
        y = sparse_conv2d(x, kernel, implementation="sparse")
        assert not np.isnan(y).any()
        seen.add(use_sparse)
    assert seen == {True, False}


def test_dense_where_it_is_faster_learns_all_the_same(compiled):
    random = np.random.default_rng(0)
    kernel = SparseKernel.from_dense(sparse(random, (3, 3, 64, 64), 0.95))
    x = random.normal(size=(2, 14, 14, 64)).astype(np.float32)
    assert not plan(kernel, x.shape).use_sparse
    gradients = []
    for name in ("", "sparse"):
        with tf.GradientTape() as tape:
            tape.watch(kernel.values)
            y = sparse_conv2d(x, kernel, implementation=name)
            loss = tf.reduce_sum(y**2)
        gradients.append(tape.gradient(loss, kernel.values).numpy())
    np.testing.assert_allclose(
        *gradients, rtol=1e-4, atol=1e-5 * np.abs(gradients[0]).max()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"kernel": CONV3, "shape": IMAGES},
            "Invalid value for argument density. Expected a number in [0, 1] "
            "beside the shape of a kernel. Received: density=None",
        ),
        (
            {"kernel": CONV3, "shape": IMAGES, "density": 1.5},
            "Invalid value for argument density. Expected a number in [0, 1] "
            "beside the shape of a kernel. Received: density=1.5",
        ),
        (
            {
                "kernel": SparseKernel.from_dense([[[[1.0]]]]),
                "shape": IMAGES,
                "density": 0.5,
            },
            "Invalid value for argument density. Expected None beside a "
            "SparseKernel. Received: density=0.5",
        ),
        (
            {"kernel": CONV3, "shape": (13, 13, 256), "density": 0.5},
            "Invalid value for argument shape. Expected four integers >= 0, "
            "those of the input. Received: shape=(13, 13, 256)",
        ),
        (
            {
                "kernel": CONV3,
                "shape": IMAGES,
                "density": 0.5,
                "num_threads": 0,
            },
            "Invalid value for argument num_threads. Expected an integer >= 1, "
            "or None. Received: num_threads=0",
        ),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        plan(**arguments)
    assert str(error.value) == message


def test_shapes_that_do_not_fit(compiled):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        plan(CONV3, (32, 13, 13, 200), density=0.1)
    assert (
        "The input [32,13,13,200] in the format NHWC has 200 channels, the "
        "kernel [3,3,256,384] with 1 groups reads 256." in str(error.value)
    )
