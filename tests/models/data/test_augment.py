"""The transforms, and `load(..., augment=...)` in memory and streamed."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

from models.data import augment
from models.data.classification import load
from tests import fake_images

ON_DISK, IN_MEMORY = 0, 2**30


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def random_draws(*shape, seed=0):
    draws = np.random.default_rng(seed).uniform(size=shape)
    return draws.astype("float32")


# --- The transforms


def test_none():
    how = augment.of("none")
    assert (how.image_size, how.stored_size, how.num_draws) == (None, None, 0)
    images = random_images(2, 5, 4, 3)
    want = images.astype("float32") / np.float32(255)
    np.testing.assert_array_equal(how.train(images, np.zeros((2, 0))), want)
    np.testing.assert_array_equal(how.test(images), want)


@pytest.mark.parametrize(
    "name, image_size, stored_size",
    [
        ("cifar", None, (32, 32)),
        ("cifar", (12, 18), (16, 24)),
        ("cifar_pad", None, (32, 32)),
        ("cifar_pad", (12, 18), (12, 18)),
        ("imagenet", None, (256, 256)),
        ("imagenet", (227, 112), (259, 128)),
    ],
)
def test_sizes(name, image_size, stored_size):
    how = augment.of(name, image_size)
    assert how.stored_size == stored_size
    default = {"cifar": 24, "cifar_pad": 32, "imagenet": 224}[name]
    size = image_size or (default, default)
    assert how.image_size == size
    images = random_images(3, *stored_size, 3)
    trained = how.train(images, random_draws(3, how.num_draws))
    for made in (trained, how.test(images)):
        assert made.shape == (3, *size, 3)
        assert made.dtype == "float32"


def test_crop_is_a_window_of_the_image():
    images = random_images(8, 9, 11, 3)
    down = np.array([0, 0, 0.99, 0.99, 0.5, 0.2, 0.7, 0.9], "float32")
    right = np.array([0, 0.99, 0, 0.99, 0.5, 0.3, 0.1, 0.6], "float32")
    mirror = np.arange(8) % 2 == 1
    crops = augment.crop(images, down, right, mirror, (6, 4)).numpy()
    for i in range(8):
        # 4 rows and 8 columns to begin at.
        top, left = int(down[i] * 4), int(right[i] * 8)
        want = images[i, top : top + 6, left : left + 4]
        want = want[:, ::-1] if mirror[i] else want
        np.testing.assert_array_equal(crops[i], want)


def test_central_crop():
    images = random_images(2, 32, 30, 1)
    crops = augment.central_crop(tf.constant(images), (24, 24))
    np.testing.assert_array_equal(crops, images[:, 4:28, 3:27])


def test_contrast_and_standardizing_are_those_of_tensorflow():
    images = random_images(4, 6, 7, 3).astype("float32") / 255
    factor = np.array([0.2, 0.7, 1.0, 1.8], "float32")
    changed = augment.change_contrast(tf.constant(images), factor)
    for image, one, how_much in zip(images, changed, factor, strict=True):
        want = tf.image.adjust_contrast(image, how_much)
        np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-6)


def reference_cifar(image, draws):
    """One training image in float64."""
    top, left = (int(d * 9) for d in draws[:2])
    x = image[top : top + 24, left : left + 24].astype(np.float64) / 255
    if draws[2] < 0.5:
        x = x[:, ::-1]
    mean = x.mean((0, 1))
    x = (x - mean) * (0.2 + 1.6 * draws[3]) + mean
    return (x - x.mean()) / max(x.std(), 1 / np.sqrt(x.size))


def test_cifar():
    images, draws = random_images(20, 32, 32, 3), random_draws(20, 4)
    got = augment.of("cifar").train(images, draws).numpy()
    for i in range(20):
        want = reference_cifar(images[i], draws[i])
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-4)


def test_cifar_test_images():
    images = random_images(3, 32, 32, 3)
    x = images[:, 4:28, 4:28].astype(np.float64)
    want = (x - x.mean((1, 2, 3), keepdims=True)) / x.std(
        (1, 2, 3), keepdims=True
    )
    got = augment.of("cifar").test(tf.constant(images))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


CIFAR_MEAN = np.array([0.4914, 0.4822, 0.4465])
CIFAR_STDDEV = np.array([0.2470, 0.2435, 0.2616])


def test_cifar_pad():
    images, draws = random_images(20, 32, 32, 3), random_draws(20, 3)
    got = augment.of("cifar_pad").train(images, draws).numpy()
    for i in range(20):
        x = (images[i] / 255 - CIFAR_MEAN) / CIFAR_STDDEV
        x = np.pad(x, [(4, 4), (4, 4), (0, 0)])
        top, left = (int(d * 9) for d in draws[i, :2])
        x = x[top : top + 32, left : left + 32]
        want = x[:, ::-1] if draws[i, 2] < 0.5 else x
        np.testing.assert_allclose(got[i], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(28, 28), (5, 9)])
def test_shift(size):
    images, draws = random_images(20, *size, 1), random_draws(20, 2)
    how = augment.of("shift", size)
    got = how.train(images, draws).numpy()
    places = set()
    for i in range(20):
        down, right = (int(d * 3) for d in draws[i])
        places |= {down, right}
        x = np.pad(images[i], [(1, 1), (1, 1), (0, 0)])
        x = x[down : down + size[0], right : right + size[1]]
        np.testing.assert_allclose(got[i], x / 255, rtol=1e-6)
    assert places == {0, 1, 2}
    np.testing.assert_allclose(how.test(images), images / 255, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_cifar_pad_test_images(channels):
    images = random_images(3, 32, 32, channels)
    mean, stddev = (
        values if channels == 3 else values.mean()
        for values in (CIFAR_MEAN, CIFAR_STDDEV)
    )
    got = augment.of("cifar_pad").test(tf.constant(images))
    want = (images / 255 - mean) / stddev
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_brightness_would_change_nothing():
    images = random_images(3, 24, 24, 3).astype("float32") / 255
    np.testing.assert_allclose(
        augment.standardize(tf.constant(images + 0.2)),
        augment.standardize(tf.constant(images)),
        atol=1e-4,
    )


def test_windows():
    boxes = augment.windows(tf.constant(random_draws(4000, 4))).numpy()
    top, left, bottom, right = boxes.T.astype(np.float64)
    height, width = bottom - top, right - left
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    whole = (height < 1 - 1e-6) & (width < 1 - 1e-6)  # not cut
    ratio = (width / height)[whole]
    assert 3 / 4 - 1e-4 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 4 / 3 + 1e-4
    area = height * width
    assert 0.08 - 1e-4 < area.min() < 0.09
    assert area.max() > 0.95
    # As many wide as high ones: binomial, sigma 0.008 of a half.
    assert abs((ratio > 1).mean() - 0.5) < 5 * 0.01


def test_imagenet_whole_image_and_mirror():
    images = random_images(2, 32, 32, 3)
    how = augment.of("imagenet", (28, 28))
    draws = np.full((2, 5), 0.5, "float32")
    draws[:, 0] = 1.0  # all of the area
    draws[1, 4] = 0.4  # mirrored
    got = how.train(images, draws)
    # Corners of the crop are those of the image.
    want = images.astype("float32") / 127.5 - 1
    np.testing.assert_allclose(got[0, 0, 0], want[0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(got[0, -1, -1], want[0, -1, -1], atol=1e-5)
    np.testing.assert_allclose(got[1, 0, 0], want[1, 0, -1], atol=1e-5)
    np.testing.assert_allclose(got[1, -1, -1], want[1, -1, 0], atol=1e-5)


def test_imagenet_test_images():
    images = random_images(2, 32, 32, 3)
    got = augment.of("imagenet", (28, 28)).test(tf.constant(images))
    want = images[:, 2:30, 2:30].astype("float32") / 127.5 - 1
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_unknown():
    message = (
        "Invalid value for argument augment. Expected one of {'none', 'shift', "
        "'cifar', 'cifar_pad', 'imagenet'}. Received: augment='cifr'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        augment.of("cifr")


# --- Through `load`


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    fake_images.prepare(folder)
    return fake_images.prepare_imagenet(folder)


@pytest.fixture(params=[IN_MEMORY, ON_DISK], ids=["in_memory", "streamed"])
def memory(request):
    return request.param


def take(batches, count):
    return [x.numpy() for x, _ in itertools.islice(batches, count)]


@pytest.mark.parametrize("name", ["cifar", "imagenet"])
def test_restart_sees_the_same_images(data_dir, memory, name):
    dataset = load(
        "fake_images",
        data_dir,
        image_size=(12, 12),
        in_memory_bytes=memory,
        augment=name,
    )
    assert dataset.image_shape == (12, 12, 1)
    whole = take(dataset.train(25, 0, 2, seed=3), 6)  # three epochs
    rest = take(dataset.train(25, 0, 2, seed=3, start_epoch=1), 4)
    np.testing.assert_array_equal(rest, whole[2:])
    assert (take(dataset.train(25, 0, 2, seed=4), 1)[0] != whole[0]).any()


def test_an_image_differs_from_epoch_to_epoch(tmp_path, memory):
    # All images are equal: what differs is the augmentation.
    for split in ("train", "test"):
        for i in range(8):
            path = tmp_path / split / "one" / f"{i}.png"
            tf.io.write_file(
                str(path), tf.io.encode_png(random_images(32, 32, 3))
            )
    dataset = load("folder", tmp_path, in_memory_bytes=memory, augment="cifar")
    epochs = take(dataset.train(8, seed=1), 2)
    assert len({x.tobytes() for x in np.concatenate(epochs)}) == 16
    (tests,) = take(dataset.test(8), 1)
    assert len({x.tobytes() for x in tests}) == 1


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_batches_and_workers_change_no_image(data_dir, memory, num_ranks):
    dataset = load(
        "fake_images", data_dir, in_memory_bytes=memory, augment="cifar",
        image_size=(12, 12),
    )  # fmt: skip

    def seen(batch_size, size, num_ranks):
        batches = [
            batch
            for rank in range(0, size, num_ranks)
            for batch in take(
                dataset.train(
                    batch_size, rank, size, seed=2, num_ranks=num_ranks
                ),
                100 // batch_size // size,
            )
        ]
        return sorted(x.tobytes() for x in np.concatenate(batches))

    assert seen(5, 4, num_ranks) == seen(20, 1, 1)


def test_imagenet_is_tested_on_its_validation_split(data_dir, memory):
    dataset = load(
        "imagenet2012",
        data_dir,
        image_size=(28, 28),
        in_memory_bytes=memory,
        augment="imagenet",
    )
    assert dataset.name == "imagenet2012:1.2.0"
    assert dataset.image_shape == (28, 28, 3)
    images, labels = next(iter(dataset.test(21)))
    assert images.shape == (21, 28, 28, 3)
    assert -1 <= images.numpy().min() < images.numpy().max() <= 1
    np.testing.assert_array_equal(
        np.sort(labels), np.sort(np.arange(1000, 1021) % 4)
    )
    images, labels = next(iter(dataset.train(16)))
    assert images.shape == (16, 28, 28, 3)
    assert labels.numpy().min() >= 0
