"""Reads images that lie in one folder per class.

    data_dir/train/cat/0001.jpg
    data_dir/train/dog/0001.jpg
    data_dir/test/cat/0001.jpg

The classes are numbered in the order of their names, as TFDS numbers those
of CIFAR-10. A test split may also be called "validation" or "val".
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from models.data.records import Split

_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclasses.dataclass(frozen=True)
class FolderSplit(Split):
    """One split of a folder of images; `files` are the images.

    Attributes:
      class_names: names of the class folders, sorted.
    """

    class_names: tuple[str, ...]

    def records(self, files: tf.Tensor, in_turns: int = 1) -> tf.data.Dataset:
        """Returns the paths: an image is a record, read when it is parsed."""
        del in_turns
        return tf.data.Dataset.from_tensor_slices(files)

    def parse(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns encoded images (string) and labels (int64), `[batch]`."""
        encoded = tf.map_fn(tf.io.read_file, records)
        folders = tf.strings.regex_replace(
            records, r"^.*/([^/]+)/[^/]+$", r"\1"
        )
        labels = tf.argmax(
            folders[:, tf.newaxis] == tf.constant(self.class_names), axis=1
        )
        return encoded, labels


def has_images(data_dir: str | pathlib.Path | None) -> bool:
    """Whether the folder holds "train" with at least one class in it."""
    return data_dir is not None and bool(
        _class_names(pathlib.Path(data_dir).expanduser() / "train")
    )


def find_test_split(data_dir: str | pathlib.Path) -> str:
    """Returns the first of "test", "validation" and "val" that there is."""
    folder = pathlib.Path(data_dir).expanduser()
    for name in ("test", "validation", "val"):
        if (folder / name).is_dir():
            return name
    return "test"


def split_of(
    data_dir: str | pathlib.Path,
    name: str,
    image_size: tuple[int, int] | None = None,
) -> FolderSplit:
    """Describes a split of a folder of images (JPEG or PNG).

    Args:
      data_dir: folder of the splits.
      name: of the split, such as "train".
      image_size: height and width that images of another size are resized to
        (bilinear, antialiased); None is the size of the first training image.

    Raises:
      FileNotFoundError: there is no such split, or a class has no images.
      ValueError: the classes differ from those of "train".
    """
    # In the form that `parse` expects: absolute, with slashes.
    data_dir = pathlib.Path(data_dir).expanduser().absolute()
    folder = data_dir / name
    class_names = _class_names(folder)
    if not class_names:
        raise FileNotFoundError(
            f"No images in {folder}. Expected one folder per class with "
            f"{', '.join(_SUFFIXES)} files, such as {folder}/cat/0001.jpg"
        )
    train_names = _class_names(data_dir / "train")
    if class_names != train_names:
        odd = sorted(set(class_names) ^ set(train_names))
        raise ValueError(
            f"The classes of {folder} differ from those of {data_dir}/train. "
            f"Expected the same folders in both. Received: only in one of them "
            f"{{{', '.join(map(repr, odd))}}}"
        )
    files = []
    for class_name in class_names:
        images = _images(folder / class_name)
        if not images:
            raise FileNotFoundError(
                f"No images in {folder / class_name}. Expected "
                f"{', '.join(_SUFFIXES)} files"
            )
        files += images
    own_shape = _first_shape(data_dir / "train" / class_names[0])
    return FolderSplit(
        name=name,
        files=tuple(files),
        num_examples=len(files),
        image_shape=(*(image_size or own_shape[:2]), own_shape[-1]),
        # Known only when they are decoded.
        resize=True,
        class_names=class_names,
    )


def _class_names(folder: pathlib.Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(
            path.name
            for path in folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )
    )


def _images(folder: pathlib.Path) -> list[str]:
    return sorted(
        str(path)
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )


def _first_shape(folder: pathlib.Path) -> tuple[int, int, int]:
    image = tf.io.decode_png(tf.io.read_file(_images(folder)[0]))
    height, width, channels = np.shape(image)
    # Grey, or colours; what is transparent is drawn as if it were not.
    return height, width, 1 if channels <= 2 else 3
