"""Blocks of weights that training zeroes, and the kernels that skip them."""

import keras
import numpy as np
import pytest

import custom_ops
import tf_ssl

_BLOCK = (16, 1)  # filters times (height, width, channel)


def problem():
    """Images, and labels that the first four of their 32 channels decide."""
    random = np.random.default_rng(0)
    images = random.normal(size=(128, 8, 8, 32)).astype("float32")
    return images, images[..., :4].mean(axis=(1, 2)).argmax(-1)


def trained():
    """A network whose blocks went to zero while it learned."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 32)),
            keras.layers.Conv2D(64, 3, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, name="logits"),
        ]
    )
    blocks = tf_ssl.kernel_structures(model, {"conv": ("block", _BLOCK)})
    model.compile(
        tf_ssl.GroupLassoOptimizer(
            keras.optimizers.Adam(0.01), blocks, 0.015, update="proximal"
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images, labels = problem()
    model.fit(images, labels, batch_size=32, epochs=40, verbose=0)
    return model, blocks[0]


@pytest.mark.slow
def test_from_training_to_sparse_kernels(tmp_path):
    model, blocks = trained()
    images, labels = problem()
    assert model.evaluate(images, labels, verbose=0)[1] > 0.9
    dead = blocks.norms() == 0
    assert 0.6 < dead.mean() < 1
    # Whole blocks are zero, and nothing else.
    kernel = model.get_layer("conv").kernel.numpy()
    assert (kernel != 0).mean() == pytest.approx(1 - dead.mean(), abs=0.01)
    found = custom_ops.SparseKernel.from_dense(kernel).pattern()
    assert found in ("block16x1", "columns")
    # Fine-tuning without the penalty holds the zeros.
    model.compile(
        keras.optimizers.Adam(0.001),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    freeze = tf_ssl.callbacks.FreezeZeros([blocks], "group")
    model.fit(images, labels, epochs=2, verbose=0, callbacks=[freeze])
    np.testing.assert_array_equal(blocks.norms() == 0, dead)
    if custom_ops.status()["implementation"] != "c++":
        pytest.skip("no sparse kernels without the C++ ops")
    sparse = tf_ssl.sparsify(model, batch_size=32, measure=False)
    layer = sparse.get_layer("conv")
    assert isinstance(layer, tf_ssl.layers.SparseConv2D)
    (row,) = [r for r in sparse.sparsify_report.layers if r.name == "conv"]
    assert row.plan.pattern == found
    np.testing.assert_allclose(
        sparse(images), model(images), rtol=1e-4, atol=1e-5
    )
    sparse.save(tmp_path / "sparse.keras")
    loaded = keras.saving.load_model(tmp_path / "sparse.keras", compile=False)
    np.testing.assert_array_equal(loaded(images[:4]), sparse(images[:4]))
