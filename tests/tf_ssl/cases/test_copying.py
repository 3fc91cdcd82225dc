"""Layers that shrink, decompose and sparsify copy keep what they hold."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.cases.same import difference, noise, outputs, shrunk, train
from tests.tf_ssl.hub import backbones

layers = keras.layers
SPREAD = np.random.default_rng(0).normal(3, 2, (50, 64)).astype("float32")


def words(lookup, dense=2):
    """A model of four words, and words that it knows."""
    ids = keras.Input((4,), dtype=lookup.dtype)
    x = layers.Flatten()(layers.Embedding(6, 8)(lookup(ids)))
    x = layers.Dense(dense, name="hidden")(x)
    return keras.Model(ids, layers.Dense(2)(x))


def integers():
    lookup = layers.IntegerLookup()
    lookup.adapt(np.array([[5], [9], [5], [2], [6]]))
    return words(lookup), np.array([[5, 9, 2, 6], [7, 7, 5, 2]])


def strings():
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    ids = keras.Input((4,), dtype="string")
    x = layers.Flatten()(layers.Embedding(6, 8)(lookup(ids)))
    model = keras.Model(ids, layers.Dense(2)(x))
    return model, np.array([["a", "c", "b", "?"]])


def normalized():
    norm = layers.Normalization()
    norm.adapt(SPREAD)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            norm,
            layers.Dense(64, activation="relu", name="a"),
            layers.Dense(32, name="b"),
            layers.Dense(2),
        ]
    )
    return model, SPREAD[:5]


@pytest.mark.parametrize("build", [integers, strings, normalized])
def test_state_of_preprocessing_is_kept(build):
    model, inputs = build()
    small = tf_ssl.shrink(model, sample=inputs)
    assert difference(model, small, inputs) <= 1e-6


@pytest.mark.parametrize("build", [integers, normalized])
@pytest.mark.parametrize("tool", ["decompose", "sparsify"])
def test_the_other_tools_keep_it_as_well(build, tool):
    model, inputs = build()
    if tool == "decompose":
        new = tf_ssl.decompose(model, energy=1.0, sample=inputs)
        report = new.decompose_report
    else:
        new = tf_ssl.sparsify(model, sample=inputs, seconds=0.01)
        report = new.sparsify_report
    assert difference(model, new, inputs) <= 1e-6
    assert report.difference <= report.tolerance


def test_low_rank_kernel_behind_a_normalization():
    model, inputs = normalized()
    kernel = model.get_layer("a").kernel
    u, s, v = np.linalg.svd(kernel.numpy())
    s[8:] = 0
    kernel.assign(u * s @ v)
    new = tf_ssl.decompose(model, energy=0.999999)
    assert new.get_layer("a_basis").units == 8
    assert difference(model, new, inputs) <= 1e-5


@pytest.mark.slow
def test_efficientnet_with_the_statistics_of_its_weights():
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), classes=10
    )
    norm = next(x for x in model.layers if isinstance(x, layers.Normalization))
    norm.adapt_mean.assign([0.485, 0.456, 0.406])
    norm.adapt_variance.assign([0.229, 0.224, 0.225])
    norm.finalize_state()
    images = 255 * np.abs(noise(4, 32, 32, 3))
    small = shrunk(model, images)
    copy = next(x for x in small.layers if isinstance(x, layers.Normalization))
    np.testing.assert_array_equal(copy.mean, norm.mean)


def test_initializer_of_pretrained_vectors():
    vectors = noise(20, 8)
    ids = keras.Input((12,), dtype="int32")
    x = layers.Embedding(
        20,
        8,
        embeddings_initializer=keras.initializers.Constant(vectors),
        name="e",
    )(ids)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(ids, layers.Dense(2)(x))
    tf_ssl.find_structures(model)["e/embedding"].zero([0, 1])
    small = shrunk(model, np.arange(24).reshape(2, 12) % 20)
    assert small.get_layer("e").output_dim == 6


class _Scale(layers.Layer):
    """Without get_config."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


def _normal(shape, dtype=None):
    return keras.random.normal(shape, dtype=dtype)


@pytest.mark.parametrize(
    "build",
    [
        lambda: layers.Lambda(lambda x: 2.0 * x),
        lambda: _Scale(2.0),
        lambda: layers.Conv2D(4, 3, kernel_initializer=_normal),
        lambda: layers.Conv2D(
            4, 3, kernel_initializer=lambda s, dtype=None: _normal(s, dtype)
        ),
    ],
    ids=["lambda", "no_config", "function", "initializer"],
)
def test_what_no_config_makes_again(build):
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="c")(images)
    x = layers.Dense(2)(layers.Flatten()(build()(x)))
    model = keras.Model(images, x)
    structures = tf_ssl.find_structures(model)
    # A Lambda may do anything to units; what it does not show stays whole.
    is_shown = "c" not in dict(structures.skipped)
    assert is_shown != isinstance(model.layers[2], layers.Lambda)
    if is_shown:
        structures["c/filters"].zero([0, 3])
    small = shrunk(model, noise(2, 8, 8, 3))
    assert small.get_layer("c").filters == (6 if is_shown else 8)


def test_noise_shape_of_dropout_follows():
    inputs = keras.Input((10, 6))
    x = layers.Dense(8, name="d")(inputs)
    x = layers.Dropout(0.3, noise_shape=(None, 1, 8))(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    tf_ssl.find_structures(model)["d/units"].zero([0, 1, 2])
    small = shrunk(model, noise(4, 10, 6))
    assert small.get_layer("d").units == 5
    train(small, noise(4, 10, 6))


def test_accumulated_gradients():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="d"), layers.Dense(2)]
    )
    model.compile(keras.optimizers.Adam(gradient_accumulation_steps=2), "mse")
    model.fit(noise(24, 6), noise(24, 2), batch_size=8, verbose=0)
    tf_ssl.find_structures(model)["d/units"].zero([0, 1, 2])
    small = tf_ssl.shrink(model, optimizer=model.optimizer)
    optimizer = small.shrink_report.optimizer
    for old, new in zip(
        model.optimizer._accumulated_gradients,
        optimizer._accumulated_gradients,
        strict=True,
    ):
        keep = [slice(3, None) if n == 8 else slice(None) for n in old.shape]
        np.testing.assert_array_equal(old.numpy()[tuple(keep)], new)
    small.compile(optimizer, "mse")
    small.fit(noise(24, 6), noise(24, 2), batch_size=8, verbose=0)
    assert all(np.isfinite(x).all() for x in outputs(small, noise(2, 6)))


@pytest.mark.slow
@pytest.mark.skipif(not backbones.has_keras_hub(), reason="needs keras_hub")
def test_shrunk_deeplab_saves_and_loads(tmp_path):
    model = backbones.deeplab_v3()
    tf_ssl.zero_random(tf_ssl.find_structures(model)[1:4], 0.3, 0)
    images = noise(2, 64, 64, 3)
    small = shrunk(model, images, sample=images)
    small.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert difference(small, loaded, images) == 0
