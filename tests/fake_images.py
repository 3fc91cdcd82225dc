"""A small image classification set in TFDS's prepared format."""

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

NUM_TRAIN = 100
NUM_TEST = 21
FIRST_TEST = 1000  # index of the first test image
SHAPE = (16, 16, 1)
NUM_CLASSES = 4


def image(index: int, shape=SHAPE) -> np.ndarray:
    """An image that tells its index by its first two pixels.

    The rest is dark but for one quarter, which tells the label.
    """
    pixels = np.zeros(shape, np.uint8)
    height, width = shape[0] // 2, shape[1] // 2
    row, column = divmod(label(index), 2)
    pixels[row * height :, column * width :][:height, :width] = 200
    pixels[0, 0], pixels[0, 1] = index % 256, index // 256
    return pixels


def label(index: int) -> int:
    """The label of an image."""
    return index % NUM_CLASSES


def prepare(data_dir, name="fake_images", num_shards=3):
    """Writes images 0 to 99 ("train") and 1000 to 1020 ("test")."""
    features = {
        "image": tfds.features.Image(shape=SHAPE),
        "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
    }

    def example(index):
        return {"image": image(index), "label": label(index)}

    return _write(data_dir, name, features, example, num_shards, "test")


def prepare_photos(data_dir, name="fake_photos", num_shards=3):
    """The same in colour and in several sizes, with a split "validation"."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
    }

    def example(index):
        shape = (20 + index % 3, 18, 3)
        return {"image": image(index, shape), "label": label(index)}

    return _write(data_dir, name, features, example, num_shards, "validation")


def prepare_table(data_dir, name="fake_table"):
    """No classification set of images."""
    features = {"x": tfds.features.Scalar(np.int64)}
    return _write(data_dir, name, features, lambda i: {"x": i}, 1, "test")


def _write(data_dir, name, features, example, num_shards, test_split):
    folder = pathlib.Path(data_dir) / name / "1.2.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    splits = []
    for split, indices in (
        ("train", range(NUM_TRAIN)),
        (test_split, range(FIRST_TEST, FIRST_TEST + NUM_TEST)),
    ):
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=name,
            split=split,
            filetype_suffix="tfrecord",
        )
        lengths = []
        for shard in range(num_shards):
            path = template.sharded_filepath(
                shard_index=shard, num_shards=num_shards
            )
            members = indices[shard::num_shards]
            with tf.io.TFRecordWriter(str(path)) as writer:
                for index in members:
                    writer.write(features.serialize_example(example(index)))
            lengths.append(len(members))
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=0,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=splits
    )
    return data_dir
