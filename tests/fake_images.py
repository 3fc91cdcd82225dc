"""Small data sets in TFDS's prepared format, most of them of images."""

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

    def example(index, split):
        return {"image": image(index), "label": label(index)}

    return _write(data_dir, name, features, example, num_shards, "test")


def prepare_photos(data_dir, name="fake_photos", num_shards=3):
    """The same in colour and in several sizes, with a split "validation"."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
    }

    def example(index, split):
        shape = (20 + index % 3, 18, 3)
        return {"image": image(index, shape), "label": label(index)}

    return _write(data_dir, name, features, example, num_shards, "validation")


def prepare_imagenet(data_dir, num_shards=3):
    """Named and split as TFDS's ImageNet: its "test" has no labels."""
    features = {
        "image": tfds.features.Image(
            shape=(None, None, 3), encoding_format="jpeg"
        ),
        "label": tfds.features.ClassLabel(num_classes=NUM_CLASSES),
        "file_name": tfds.features.Text(),
    }

    def example(index, split):
        return {
            "image": image(index, (20 + index % 3, 18, 3)),
            "label": -1 if split == "test" else label(index),
            "file_name": f"{index}.JPEG",
        }

    return _write(
        data_dir,
        "imagenet2012",
        features,
        example,
        num_shards,
        "validation",
        "test",
    )


def write_folder(data_dir, shape=(16, 16, 3), test_split="test"):
    """The same images as PNG files, a folder per class."""
    for split, indices in (
        ("train", range(NUM_TRAIN)),
        (test_split, range(FIRST_TEST, FIRST_TEST + NUM_TEST)),
    ):
        for index in indices:
            folder = pathlib.Path(data_dir) / split / f"class{label(index)}"
            folder.mkdir(parents=True, exist_ok=True)
            encoded = tf.io.encode_png(image(index, shape))
            tf.io.write_file(str(folder / f"{index:04}.png"), encoded)
    return data_dir


def prepare_table(data_dir, name="fake_table"):
    """No classification set of images."""
    features = {"x": tfds.features.Scalar(np.int64)}
    return _write(
        data_dir, name, features, lambda i, split: {"x": i}, 1, "test"
    )


def prepare_squad(data_dir):
    """Questions named and split as TFDS's SQuAD."""
    features = {
        "id": tfds.features.Text(),
        "title": tfds.features.Text(),
        "context": tfds.features.Text(),
        "question": tfds.features.Text(),
        "answers": tfds.features.Sequence(
            {"text": tfds.features.Text(), "answer_start": np.int32}
        ),
    }

    def example(index, split):
        return {
            "id": f"q{index}",
            "title": "kings",
            "context": f"Then king Saul{index} came.",
            "question": "Who came?",
            "answers": {
                "text": [f"Saul{index}", f"king Saul{index}"],
                "answer_start": [10, 5],
            },
        }

    return _write(data_dir, "squad", features, example, 1, "validation")


def _write(data_dir, name, features, example, num_shards, *test_splits):
    folder = pathlib.Path(data_dir) / name / "1.2.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    tests = range(FIRST_TEST, FIRST_TEST + NUM_TEST)
    splits = []
    for split, indices in (
        ("train", range(NUM_TRAIN)),
        *((split, tests) for split in test_splits),
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
                    writer.write(
                        features.serialize_example(example(index, split))
                    )
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
