import itertools
import re

import numpy as np
import pytest

import models
from models.data.classification import load
from tests import fake_images

ON_DISK, IN_MEMORY = 0, 2**30


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    fake_images.prepare(folder)
    fake_images.prepare_photos(folder)
    fake_images.prepare_table(folder)
    return folder


@pytest.fixture(params=[IN_MEMORY, ON_DISK], ids=["in_memory", "streamed"])
def dataset(request, data_dir):
    return load("fake_images", data_dir, in_memory_bytes=request.param)


def indices(images):
    """Which images these are: see `fake_images.image`."""
    pixels = np.rint(np.asarray(images) * 255).astype(int)
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]).tolist()


def take(batches, count):
    return [indices(x) for x, _ in itertools.islice(batches, count)]


def test_description(dataset):
    assert dataset.name == "fake_images:1.2.0"
    assert dataset.num_classes == fake_images.NUM_CLASSES
    assert dataset.image_shape == fake_images.SHAPE
    assert dataset.num_train == fake_images.NUM_TRAIN
    assert dataset.num_test == fake_images.NUM_TEST
    assert dataset.steps_per_epoch(8, 3) == 100 // 24


def test_images_and_labels(dataset):
    images, labels = next(iter(dataset.train(10)))
    assert images.dtype == "float32"
    assert labels.dtype == "int64"
    for got, index, label in zip(
        images.numpy(), indices(images), labels.numpy(), strict=True
    ):
        want = fake_images.image(index).astype("float32") / np.float32(255)
        np.testing.assert_array_equal(got, want)
        assert label == fake_images.label(index)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_workers_are_disjoint_and_equally_long(dataset, size):
    batch_size = 8
    steps = dataset.steps_per_epoch(batch_size, size)
    streams = [
        iter(dataset.train(batch_size, rank, size, seed=5))
        for rank in range(size)
    ]
    for _ in range(3):  # epochs
        seen = [
            index
            for stream in streams
            for batch in take(stream, steps)
            for index in batch
        ]
        assert len(seen) == steps * batch_size * size
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(fake_images.NUM_TRAIN))


@pytest.mark.parametrize("rank, num_ranks", [(0, 3), (1, 2), (2, 1)])
def test_batches_of_several_workers(dataset, rank, num_ranks):
    size, count = 3, 9  # two epochs and a half
    together = take(
        dataset.train(8, rank, size, seed=5, num_ranks=num_ranks), count
    )
    alone = [
        take(dataset.train(8, r, size, seed=5), count)
        for r in range(rank, rank + num_ranks)
    ]
    for batch, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert batch == [index for part in parts for index in part]


def test_too_many_ranks(dataset):
    with pytest.raises(ValueError) as error:
        dataset.train(8, 2, 4, num_ranks=3)
    assert str(error.value) == (
        "Invalid value for argument num_ranks. Expected 1 to 2 for "
        "rank=2, size=4. Received: num_ranks=3"
    )


def test_every_epoch_has_a_new_order(dataset):
    stream = iter(dataset.train(20, seed=5))
    epochs = [take(stream, 5) for _ in range(4)]
    assert len({str(epoch) for epoch in epochs}) == 4
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == list(range(fake_images.NUM_TRAIN))


def test_seed_determines_the_order(dataset):
    def first(seed):
        return take(dataset.train(20, seed=seed), 5)

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("start_epoch", [1, 3])
def test_restart_at_an_epoch(dataset, start_epoch):
    whole = take(dataset.train(16, 1, 2, seed=5), 5 * 3)
    rest = dataset.train(16, 1, 2, seed=5, start_epoch=start_epoch)
    assert take(rest, 15 - 3 * start_epoch) == whole[3 * start_epoch :]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_test_example_once(dataset, size):
    seen = []
    for rank in range(size):
        batches = list(dataset.test(4, rank, size))
        mine = [index for x, _ in batches for index in indices(x)]
        assert len(mine) == dataset.test_examples(rank, size)
        seen += mine
    assert sorted(seen) == list(
        range(1000, 1000 + fake_images.NUM_TEST)
    )


def test_streamed_window_smaller_than_the_set(data_dir):
    dataset = load("fake_images", data_dir, in_memory_bytes=0)
    dataset._train.window = 7
    stream = iter(dataset.train(20, seed=5))
    epochs = [take(stream, 5) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == list(range(fake_images.NUM_TRAIN))


def test_mnist():
    dataset = models.data.load("mnist")
    assert dataset.num_train == 60000
    assert dataset.num_test == 10000
    assert dataset.image_shape == (28, 28, 1)
    labels = [y for _, batch in dataset.test(1000) for y in batch.numpy()]
    assert labels.count(1) == 1135
    assert labels.count(5) == 892


@pytest.mark.parametrize("memory", [IN_MEMORY, ON_DISK])
def test_images_of_several_sizes(data_dir, memory):
    dataset = load(
        "fake_photos", data_dir, image_size=(12, 10), in_memory_bytes=memory
    )
    assert dataset.image_shape == (12, 10, 3)
    assert dataset.num_test == fake_images.NUM_TEST  # of split "validation"
    for batches in (dataset.train(8), dataset.test(8)):
        images, labels = next(iter(batches))
        assert images.shape == (8, 12, 10, 3)
        assert 0 <= images.numpy().min() <= images.numpy().max() <= 1
        # The bright quarter tells the label still.
        rows, columns = np.divmod(labels.numpy(), 2)
        middle = images.numpy()[np.arange(8), 3 + 6 * rows, 2 + 5 * columns, 0]
        np.testing.assert_allclose(middle, 200 / 255, atol=0.01)


def test_images_of_several_sizes_need_image_size(data_dir):
    message = (
        "Images of dataset fake_photos differ in size. Pass image_size, the "
        "height and width that all are resized to. Received: image_size=None"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("fake_photos", data_dir)


def test_no_classification_set(data_dir):
    message = (
        "Dataset fake_table is no image classification set. Expected features "
        "{'image': Image(dtype=uint8), 'label': ClassLabel}. Received: {'x'}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("fake_table", data_dir)


def test_unknown_split(data_dir):
    message = (
        "Invalid value for argument split. Expected one of {'test', 'train'} "
        "of dataset fake_images. Received: split='dev'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("fake_images", data_dir, train_split="dev")


@pytest.mark.parametrize("split", ["train", "test"])
def test_worker_is_checked(dataset, split):
    message = (
        "Invalid value for argument rank. Expected 0 <= rank < size. "
        "Received: rank=2, size=2"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(dataset, split)(8, 2, 2)
