"""Tests of models/layers/domain_losses.py and models/adaptation.py."""

import keras
import numpy as np
import pytest

from models.adaptation import adapt
from models.layers.domain_losses import DomainDivergence, PredictionEntropy


def mmd(s, t, bandwidths):
    points = np.concatenate([s, t]).astype(np.float64)
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    kernel = np.mean(
        [np.exp(-distances / (b * distances.mean())) for b in bandwidths], 0
    )
    n = len(s)
    return (
        kernel[:n, :n].mean()
        + kernel[n:, n:].mean()
        - 2 * kernel[:n, n:].mean()
    )


@pytest.mark.parametrize("sizes", [(5, 5), (3, 8), (1, 1)])
def test_divergence(sizes):
    random = np.random.default_rng(0)
    s, t = (random.normal(size=(n, 4)).astype(np.float32) for n in sizes)
    t += 1
    layer = DomainDivergence(0.5, bandwidths=(0.5, 2.0))
    logits = np.ones((sizes[0], 3), np.float32)
    np.testing.assert_array_equal(layer([s, t, logits]), logits)
    np.testing.assert_allclose(
        float(layer.losses[0]), 0.5 * mmd(s, t, (0.5, 2.0)), rtol=1e-4
    )


def test_the_same_features_do_not_diverge():
    layer = DomainDivergence()
    for points in (np.ones((4, 2)), np.eye(4)):
        points = points.astype(np.float32)
        layer([points, points, points])
        assert abs(float(layer.losses[-1])) < 1e-6


def test_entropy():
    layer = PredictionEntropy(2.0)
    undecided = np.log(np.array([[0.5, 0.25, 0.25], [1.0, 1e-9, 1e-9]]))
    layer([undecided.astype(np.float32), np.zeros((2, 3), np.float32)])
    expected = 2.0 * (0.5 * np.log(2) + 0.5 * np.log(4)) / 2
    np.testing.assert_allclose(float(layer.losses[0]), expected, rtol=1e-5)


def network():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x), name="net")


def test_brings_features_together(tmp_path):
    keras.utils.set_random_seed(0)
    model = network()
    training = adapt(model, divergence=5.0, entropy=0.01)
    random = np.random.default_rng(0)
    source = random.normal(size=(32, 6, 6, 1)).astype(np.float32)
    target = 3 * random.normal(size=(32, 6, 6, 1)).astype(np.float32) + 1
    labels = np.arange(32) % 3
    training.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = {"source": source, "target": target}
    losses = training.fit(
        data, labels, batch_size=32, epochs=30, verbose=0
    ).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert len(training.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_allclose(
        training.predict(data, verbose=0),
        model.predict(source, verbose=0),
        rtol=1e-5,
        atol=1e-5,
    )
    training.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("divergence").weight == 5.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DomainDivergence(-1),
            "Invalid value for argument weight. Expected a finite number >= 0. "
            "Received: weight=-1",
        ),
        (
            lambda: PredictionEntropy(float("nan")),
            "Invalid value for argument weight. Expected a finite number >= 0. "
            "Received: weight=nan",
        ),
        (
            lambda: DomainDivergence(bandwidths=(1, 0)),
            "Invalid value for argument bandwidths. Expected numbers > 0. "
            "Received: bandwidths=(1, 0)",
        ),
        (
            lambda: adapt(
                keras.Sequential(
                    [keras.Input((2,)), keras.layers.ReLU(name="end")]
                )
            ),
            "Invalid value for argument model. Expected one whose last layer "
            "is a Dense layer. Received: ReLU end",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
