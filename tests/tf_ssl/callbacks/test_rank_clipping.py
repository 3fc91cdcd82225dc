"""Tests of tf_ssl/callbacks/rank_clipping.py."""

import keras
import numpy as np
import pytest

from tf_ssl.callbacks import RankClipping
from tf_ssl.low_rank.decompose import decompose
from tf_ssl.low_rank.factors import factors


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(12, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(6, name="logits"),
        ]
    )


def fit(model, callback, epochs=3):
    model.compile(keras.optimizers.SGD(0.01), "mse")
    random = np.random.default_rng(0)
    return model.fit(
        random.normal(size=(16, 8, 8, 2)),
        random.normal(size=(16, 6)),
        epochs=epochs,
        verbose=0,
        callbacks=[callback],
    ).history


def test_kernels_have_the_rank_and_ranks_fall():
    model = network()
    callback = RankClipping(0.6, exclude="logits")
    history = fit(model, callback)
    assert set(callback.ranks) == {"conv"}
    rank = callback.ranks["conv"]
    assert 1 <= rank < 10
    values = np.linalg.svd(
        model.get_layer("conv").kernel.numpy().reshape(-1, 12)
    )[1]
    assert values[rank:].max() < 1e-6 * values[0] < values[rank - 1]
    shares = history["rank_share"]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(rank / 12)
    small = decompose(model, ranks=callback.ranks)
    x = np.ones((1, 8, 8, 2), np.float32)
    np.testing.assert_allclose(model(x), small(x), atol=1e-5)


def test_every_so_many_epochs():
    model = network()
    callback = RankClipping(0.5, every=2)
    fit(model, callback, epochs=1)
    assert not callback.ranks
    fit(model, callback, epochs=2)
    assert set(callback.ranks) == {"conv", "logits"}


@pytest.mark.parametrize("method", ["svd", "channel"])
def test_product_of_all_is_the_kernel(method):
    model = network()
    for layer in (model.get_layer("conv"), model.get_layer("logits")):
        found = factors(layer, method)
        np.testing.assert_allclose(
            found.product(found.full_rank), layer.kernel.numpy(), atol=1e-6
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"energy": 1.1},
            "Invalid value for argument energy. Expected a number in (0, 1]. "
            "Received: energy=1.1",
        ),
        (
            {"every": 0},
            "Invalid value for argument every. Expected an integer >= 1. "
            "Received: every=0",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        RankClipping(**arguments)
    assert str(error.value) == message
