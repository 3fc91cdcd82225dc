import itertools
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from models.data import folders
from models.data.classification import load
from tests import fake_images

ON_DISK, IN_MEMORY = 0, 2**30


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return fake_images.write_folder(tmp_path_factory.mktemp("images"))


def indices(images):
    pixels = np.rint(np.asarray(images) * 255).astype(int)
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]).tolist()


@pytest.mark.parametrize(
    "name, full_name", [("folder", "folder"), ("cifar10", "cifar10:folder")]
)
@pytest.mark.parametrize("memory", [IN_MEMORY, ON_DISK])
def test_images_and_labels(data_dir, name, full_name, memory):
    dataset = load(name, data_dir, in_memory_bytes=memory)
    assert dataset.name == full_name
    assert dataset.num_classes == fake_images.NUM_CLASSES
    assert dataset.image_shape == (16, 16, 3)
    assert dataset.num_train == fake_images.NUM_TRAIN
    assert dataset.num_test == fake_images.NUM_TEST
    for batches, first, count in (
        (dataset.train(10, seed=1), 0, 100),
        (dataset.test(10), 1000, 21),
    ):
        seen = []
        for images, labels in itertools.islice(batches, -(-count // 10)):
            for got, index, label in zip(
                images.numpy(), indices(images), labels.numpy(), strict=True
            ):
                want = fake_images.image(index, (16, 16, 3))
                np.testing.assert_array_equal(
                    got, want.astype("float32") / np.float32(255)
                )
                assert label == fake_images.label(index)
                seen.append(index)
        assert sorted(seen) == list(range(first, first + count))


def test_streamed_order_is_new_every_epoch(data_dir):
    dataset = load("folder", data_dir, in_memory_bytes=ON_DISK)
    stream = iter(dataset.train(50, seed=1))
    epochs = [
        [index for x, _ in itertools.islice(stream, 2) for index in indices(x)]
        for _ in range(3)
    ]
    assert len({str(epoch) for epoch in epochs}) == 3
    for epoch in epochs:
        assert sorted(epoch) == list(range(fake_images.NUM_TRAIN))


@pytest.mark.parametrize("split", ["validation", "val"])
def test_other_names_of_the_test_split(tmp_path, split):
    fake_images.write_folder(tmp_path, test_split=split)
    assert load("folder", tmp_path).num_test == fake_images.NUM_TEST


def test_images_of_another_size_are_resized(tmp_path):
    fake_images.write_folder(tmp_path)
    odd = tmp_path / "test" / "class1" / "1001.png"
    pixels = np.full((40, 30, 3), 77, np.uint8)
    tf.io.write_file(str(odd), tf.io.encode_png(pixels))
    dataset = load("folder", tmp_path)
    images = np.concatenate([x.numpy() for x, _ in dataset.test(7)])
    assert images.shape == (21, 16, 16, 3)
    assert sum(np.allclose(x, 77 / 255) for x in images) == 1


def test_grey_images(tmp_path):
    fake_images.write_folder(tmp_path, shape=(12, 10, 1))
    assert load("folder", tmp_path).image_shape == (12, 10, 1)


def test_other_files_are_left_alone(tmp_path):
    fake_images.write_folder(tmp_path)
    (tmp_path / "train" / "class0" / "list.txt").write_text("")
    (tmp_path / "train" / "README").write_text("")
    (tmp_path / "train" / ".cache").mkdir()
    assert load("folder", tmp_path).num_train == fake_images.NUM_TRAIN


def test_has_images(data_dir, tmp_path):
    assert folders.has_images(data_dir)
    assert not folders.has_images(tmp_path)
    assert not folders.has_images(None)


def error_of(action, kind):
    with pytest.raises(kind) as error:
        action()
    return str(error.value)


def test_folder_without_data_dir():
    assert error_of(lambda: load("folder"), ValueError) == (
        "Dataset 'folder' needs data_dir, which holds train/<class>/*.jpg and "
        "test/<class>/*.jpg. Received: data_dir=None"
    )


def test_no_split(tmp_path):
    fake_images.write_folder(tmp_path)
    shutil.rmtree(tmp_path / "test")
    assert error_of(lambda: load("folder", tmp_path), FileNotFoundError) == (
        f"No images in {tmp_path}/test. Expected one folder per class with "
        f".jpeg, .jpg, .png files, such as {tmp_path}/test/cat/0001.jpg"
    )


def test_empty_class(tmp_path):
    fake_images.write_folder(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "empty").mkdir()
    assert error_of(lambda: load("folder", tmp_path), FileNotFoundError) == (
        f"No images in {tmp_path}/train/empty. Expected .jpeg, .jpg, .png files"
    )


def test_other_classes(tmp_path):
    fake_images.write_folder(tmp_path)
    (tmp_path / "test" / "class3").rename(tmp_path / "test" / "class9")
    assert error_of(lambda: load("folder", tmp_path), ValueError) == (
        f"The classes of {tmp_path}/test differ from those of {tmp_path}/train."
        " Expected the same folders in both. Received: only in one of them "
        "{'class3', 'class9'}"
    )


def test_unknown_name_is_no_folder(data_dir):
    message = "Invalid value for argument name. Expected a dataset of "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load("cifar11", data_dir)
