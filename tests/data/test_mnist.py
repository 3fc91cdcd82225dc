"""The MNIST that the repository carries is all of MNIST, read offline."""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

DATA_DIR = pathlib.Path(__file__).resolve().parents[2] / "data"

# Examples of each digit, as counted in the published files.
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    "split, counts", [("train", TRAIN_COUNTS), ("test", TEST_COUNTS)]
)
def test_number_of_each_digit(split, counts):
    dataset = tfds.load(
        "mnist",
        split=split,
        data_dir=DATA_DIR,
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    labels = dataset.map(lambda example: example["label"]).batch(60000)
    (labels,) = tfds.as_numpy(labels)
    np.testing.assert_array_equal(np.bincount(labels), counts)


def test_pixels_through_builder_from_directory():
    builder = tfds.builder_from_directory(str(DATA_DIR / "mnist" / "3.0.1"))
    dataset = builder.as_dataset(split="test", batch_size=-1)
    images = tfds.as_numpy(dataset)["image"]
    assert images.shape == (10000, 28, 28, 1)
    assert images.dtype == np.uint8
    # The published mean of the test images is 0.1325 of full scale.
    assert images.mean() / 255 == pytest.approx(0.1325, abs=5e-5)


def test_takes_at_most_25_megabytes():
    files = [path for path in DATA_DIR.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 25_000_000
