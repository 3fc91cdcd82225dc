"""Reads TFDS records of one image and one label each.

`builder.info` says where the records of a split lie and how an example is
encoded. Examples are parsed and decoded a batch at a time: per example,
TFDS's general decoder costs several times what the PNG does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

_PARSE_BATCH = 512  # records per call of the parser
_BLOCK = 16  # records that are read from a file before the next one's turn


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a prepared classification set.

    Attributes:
      name: of the split, such as "train".
      files: paths of its TFRecord files.
      num_examples: in all files.
      image_shape: height, width, channels of decoded images.
      resize: whether stored images may have other sizes than that.
    """

    name: str
    files: tuple[str, ...]
    num_examples: int
    image_shape: tuple[int, int, int]
    resize: bool

    @property
    def decoded_bytes(self) -> int:
        height, width, channels = self.image_shape
        return self.num_examples * height * width * channels

    def records(self, files: tf.Tensor, in_turns: int = 1) -> tf.data.Dataset:
        """Reads files of this split.

        Args:
          files: paths, `[n]`.
          in_turns: how many files are read at the same time, sixteen records
            of one before the next one's turn; 1 is file after file.
        """
        if in_turns == 1:
            return tf.data.TFRecordDataset(files)
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(in_turns, len(self.files)),
            block_length=_BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns encoded images (string) and labels (int64), `[batch]`."""
        parsed = tf.io.parse_example(
            records,
            {
                "image": tf.io.FixedLenFeature([], tf.string),
                "label": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        return parsed["image"], parsed["label"]

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Returns one image, uint8 `[height, width, channels]`."""
        # Despite its name, this op decodes JPEG too.
        image = tf.io.decode_png(encoded, channels=self.image_shape[-1])
        if self.resize:
            size = self.image_shape[:2]
            # Those that have the size already are left as they are.
            image = tf.cond(
                tf.reduce_all(tf.shape(image)[:2] == size),
                lambda: image,
                lambda: _resized(image, size),
            )
        return tf.ensure_shape(image, self.image_shape)

    def read(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns all images, uint8 `[n, h, w, c]`, and labels, int64 `[n]`."""

        def decode_batch(records):
            encoded, labels = self.parse(records)
            images = tf.map_fn(
                self.decode, encoded, fn_output_signature=tf.uint8
            )
            return images, labels

        batches = (
            self.records(tf.constant(self.files))
            .batch(_PARSE_BATCH)
            .map(decode_batch, num_parallel_calls=tf.data.AUTOTUNE)
        )
        images, labels = zip(*batches, strict=True)
        return tf.concat(images, 0), tf.concat(labels, 0)


def split_of(
    builder: tfds.core.DatasetBuilder,
    name: str,
    image_size: tuple[int, int] | None = None,
) -> Split:
    """Describes a split of a prepared set.

    Args:
      builder: from `tfds.builder_from_directory`.
      name: of the split.
      image_size: height and width that images are resized to (bilinear,
        antialiased); None keeps the set's own, if all images have one size.

    Raises:
      ValueError: it has no such split, or is no set of uint8 images with
        labels, or its images differ in size and `image_size` is None, or it
        is not stored as TFRecord.
    """
    info = builder.info
    if name not in info.splits:
        raise ValueError(
            "Invalid value for argument split. Expected one of "
            f"{{{', '.join(map(repr, sorted(info.splits)))}}} of dataset "
            f"{info.name}. Received: split={name!r}"
        )
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"Dataset {info.name} is stored as {info.file_format.value}. "
            "Expected tfrecord. Prepare it with: "
            f"tfds build {info.name} --file_format=tfrecord"
        )
    own_shape = _image_shape(info)
    if image_size is None and None in own_shape:
        raise ValueError(
            f"Images of dataset {info.name} differ in size. Pass image_size, "
            "the height and width that all are resized to. "
            "Received: image_size=None"
        )
    size = tuple(image_size or own_shape[:2])
    return Split(
        name=name,
        files=tuple(str(path) for path in info.splits[name].filepaths),
        num_examples=info.splits[name].num_examples,
        image_shape=(*size, own_shape[-1]),
        resize=size != own_shape[:2],
    )


def _resized(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    image = tf.image.resize(image, size, antialias=True)
    return tf.saturate_cast(tf.round(image), tf.uint8)


def _image_shape(info: tfds.core.DatasetInfo) -> tuple[int | None, ...]:
    features = info.features
    names = sorted(features) if hasattr(features, "keys") else []
    image = features["image"] if "image" in names else None
    label = features["label"] if "label" in names else None
    if not (
        isinstance(image, tfds.features.Image)
        and isinstance(label, tfds.features.ClassLabel)
        and image.np_dtype == np.uint8
    ):
        raise ValueError(
            f"Dataset {info.name} is no image classification set. Expected "
            "features {'image': Image(dtype=uint8), 'label': ClassLabel}. "
            f"Received: {{{', '.join(map(repr, names))}}}"
        )
    return tuple(image.shape)
