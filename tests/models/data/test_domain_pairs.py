"""Tests of models/data/domain_pairs.py and of sets on textures."""

import itertools
import types

import numpy as np
import pytest

from models import data
from models.data.domain_pairs import DomainPairs
from models.data.shift import Textured
from tests import fake_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = fake_images.prepare(tmp_path_factory.mktemp("data"))
    return data.load("fake_images", folder)


def take(batches, count):
    return [
        (x if isinstance(x, dict) else {"": x}, y)
        for x, y in itertools.islice(batches.as_numpy_iterator(), count)
    ]


def test_batches_of_both(images):
    pairs = DomainPairs(images, Textured(images))
    assert pairs.name == f"{images.name} to {images.name} textured"
    assert (pairs.num_train, pairs.num_test) == (100, 21)
    (batch, labels), *_ = take(pairs.train(10, seed=1), 1)
    (source, source_labels), *_ = take(images.train(10, seed=1), 1)
    np.testing.assert_array_equal(batch["source"], source[""])
    np.testing.assert_array_equal(labels, source_labels)
    assert batch["target"].shape == batch["source"].shape
    assert np.abs(batch["target"] - batch["source"]).mean() > 0.05
    tests = take(pairs.test(10), 3)
    assert [len(y) for _, y in tests] == [10, 10, 1]
    for both, _ in tests:
        np.testing.assert_array_equal(both["source"], both["target"])


@pytest.mark.parametrize("num_target", [100, 70, 130])
def test_an_epoch_that_starts_anew_is_the_one_that_went_on(images, num_target):
    target = types.SimpleNamespace(
        name="target",
        image_shape=images.image_shape,
        num_classes=images.num_classes,
        num_test=1,
        steps_per_epoch=lambda batch, size: num_target // (batch * size),
        # Batch n of the stream holds n.
        train=lambda batch, rank, size, seed, epoch, num_ranks: counting(
            epoch * (num_target // (batch * size))
        ),
    )
    pairs = DomainPairs(images, target)
    whole = take(pairs.train(10), 30)
    resumed = take(pairs.train(10, start_epoch=2), 10)
    for (one, y), (other, z) in zip(whole[20:], resumed, strict=True):
        np.testing.assert_array_equal(y, z)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def counting(first):
    import tensorflow as tf

    return tf.data.Dataset.counter(first).map(lambda n: (n, n))


def test_textures_are_repeated_by_a_restart(images):
    textured = Textured(images)
    assert textured.image_shape == images.image_shape
    whole = take(textured.train(10, seed=2), 20)
    resumed = take(textured.train(10, seed=2, start_epoch=1), 10)
    for (one, y), (other, z) in zip(whole[10:], resumed, strict=True):
        np.testing.assert_array_equal(y, z)
        np.testing.assert_array_equal(one[""], other[""])
    other = take(textured.train(10, seed=3), 1)[0][0][""]
    assert (other != whole[0][0][""]).mean() > 0.5
    for (one, _), (two, _) in zip(
        take(textured.test(7), 3), take(textured.test(7), 3), strict=True
    ):
        np.testing.assert_array_equal(one[""], two[""])


def test_domains_that_do_not_fit():
    def domain(name, shape, classes):
        return types.SimpleNamespace(
            name=name, image_shape=shape, num_classes=classes
        )

    with pytest.raises(ValueError) as error:
        DomainPairs(domain("a", (8, 8, 1), 10), domain("b", (8, 8, 3), 10))
    assert str(error.value) == (
        "Source a and target b differ in image shape: (8, 8, 1) and (8, 8, 3). "
        "Expected the same, for one network learns from both"
    )
    with pytest.raises(ValueError) as error:
        DomainPairs(domain("a", (8, 8, 1), 10), domain("b", (8, 8, 1), 7))
    assert str(error.value) == (
        "Source a and target b differ in num classes: 10 and 7. Expected the "
        "same, for one network learns from both"
    )
