"""Tests of models/run/low_rank.py."""

import keras
import numpy as np
import pytest

import tf_ssl
from models.run.low_rank import LowRank


def network():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, groups=2, name="conv1")(inputs)
    x = keras.layers.Conv2D(4, 3, name="conv2")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def test_nothing_asked_for():
    low_rank, model, sgd = LowRank(), network(), keras.optimizers.SGD()
    low_rank.regularize(model)
    assert not low_rank.active and not model.losses
    assert low_rank.wrap(sgd, model) is sgd
    assert low_rank.callbacks() == []
    assert str(low_rank) == ""


def test_force_stands_beside_other_regularizers():
    model = network()
    lasso = tf_ssl.GroupLasso(0.5)
    tf_ssl.regularize(model, {"conv*": lasso})
    LowRank(strength=0.1, norm="l2", layers=("conv*",)).regularize(model)
    kernels = [model.get_layer(f"conv{i}").kernel for i in (1, 2)]
    expected = [
        float(lasso(kernel))
        + float(tf_ssl.ForceRegularizer(0.1, "l2", groups)(kernel))
        for kernel, groups in zip(kernels, (2, 1), strict=True)
    ]
    # Filters of two banks: the lasso does not tell them apart, the force does.
    np.testing.assert_allclose(
        [float(loss) for loss in model.losses], expected, rtol=1e-5
    )


def test_ratio_and_clipping():
    low_rank = LowRank(ratio=0.2, layers=["conv2", "logits"], clipping=0.9)
    optimizer = low_rank.wrap(keras.optimizers.SGD(), network())
    assert isinstance(optimizer, tf_ssl.AdaptiveForce)
    assert optimizer.kernels == ("conv2/kernel", "logits/kernel")
    (clipping,) = low_rank.callbacks()
    assert clipping.energy == 0.9
    assert str(low_rank) == (
        "l1 force, 0.2 of the gradient, on conv2,logits, ranks clipped to "
        "energy 0.9"
    )


def test_bad_arguments():
    with pytest.raises(ValueError) as error:
        LowRank(strength=0.1, ratio=0.1)
    assert str(error.value) == (
        "Pass --force, which is fixed, or --force_ratio, which follows the "
        "gradient."
    )
    with pytest.raises(ValueError) as error:
        LowRank(strength=0.1, layers=("fc*",)).regularize(network())
    assert str(error.value) == (
        "Invalid value for flag --force_layers. Expected patterns that match "
        "conv1/kernel, conv2/kernel, logits/kernel. Received: 'fc*'"
    )
