"""Prepares data/mnist in TFDS's own format from MNIST's four IDX files.

    python tools/make_mnist.py FOLDER_OF_IDX_FILES [--data_dir=data]

The examples go through TFDS's `mnist` builder, so what is written is what
`tfds.load("mnist")` would have written after a download; only the download
is replaced by the files in the folder (`train-images-idx3-ubyte.gz` and so
on, gzipped or not). The same input gives the same bytes. Every label and
every pixel is read back through TFDS and compared before the program ends.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow_datasets as tfds

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IDX_UBYTE = 0x08  # type code in the third byte of an IDX file


class _LocalFiles:
    """Stands where the builder expects its download manager.

    Attributes:
      downloaded_size: bytes of the four files as they lie in the folder;
        TFDS records it as `download_size`.
    """

    def __init__(self, folder: pathlib.Path, extracted: pathlib.Path):
        self.downloaded_size = 0
        self._paths = {}
        for name in sum(_FILES.values(), ()):
            source = _find(folder, name)
            self.downloaded_size += source.stat().st_size
            self._paths[name] = extracted / name
            self._paths[name].write_bytes(_read(source))

    def download_and_extract(self, urls: dict[str, str]) -> dict[str, str]:
        return {
            key: str(self._paths[pathlib.PurePosixPath(url).stem])
            for key, url in urls.items()
        }


def _find(folder: pathlib.Path, name: str) -> pathlib.Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"No MNIST file {name}.gz or {name}. Looked in: {folder}"
    )


def _read(path: pathlib.Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Raises:
      ValueError: the file is no IDX file of unsigned bytes, or it is cut.
    """
    content = _read(path)
    if content[:3] != bytes([0, 0, _IDX_UBYTE]):
        raise ValueError(
            f"Expected an IDX file of unsigned bytes. Received: {path} "
            f"starting with {content[:3]!r}"
        )
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def prepare(folder: pathlib.Path, data_dir: pathlib.Path):
    """Writes `data_dir/mnist/<version>`, replacing what was there."""
    shutil.rmtree(
        tfds.builder("mnist", data_dir=data_dir).data_dir, ignore_errors=True
    )
    builder = tfds.builder("mnist", data_dir=data_dir)
    # An Example is a protobuf map, whose order in the file otherwise depends on
    # the process that writes it.
    tfds.core.example_serializer.ExampleSerializer.serialize_example = (
        lambda serializer, example: serializer.get_tf_example(
            example
        ).SerializeToString(deterministic=True)
    )
    with tempfile.TemporaryDirectory() as extracted:
        files = _LocalFiles(folder, pathlib.Path(extracted))
        # The one seam between the builder and the network.
        builder._make_download_manager = lambda **_: files
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return builder


def check(folder: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Compares the prepared data with the IDX files, pixel for pixel.

    TFDS shuffles while it writes, so both sides are compared as sorted lists
    of (digest of the image, label).

    Raises:
      ValueError: a split differs.
    """
    for split, (images_name, labels_name) in _FILES.items():
        images = read_idx(_find(folder, images_name))
        labels = read_idx(_find(folder, labels_name))
        prepared = tfds.as_numpy(
            tfds.load(
                "mnist",
                split=split,
                data_dir=data_dir,
                download=False,
                as_supervised=True,
            )
        )
        expected = sorted(map(_digest, images, labels))
        received = sorted(_digest(image, label) for image, label in prepared)
        if expected != received:
            raise ValueError(
                f"The prepared split {split} differs from the IDX files. "
                f"Expected {len(expected)} examples. "
                f"Received: {len(received)} examples"
            )
        print(f"{split}: {len(expected)} examples equal to the IDX files")


def _digest(image: np.ndarray, label: int) -> tuple[bytes, int]:
    return hashlib.sha256(image.tobytes()).digest(), int(label)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, help="the IDX files")
    parser.add_argument(
        "--data_dir",
        type=pathlib.Path,
        default=pathlib.Path(__file__).resolve().parent.parent / "data",
        help="TFDS folder to write to (default: data/ of this checkout)",
    )
    arguments = parser.parse_args()
    builder = prepare(arguments.folder, arguments.data_dir)
    check(arguments.folder, arguments.data_dir)
    files = sorted(pathlib.Path(builder.data_dir).iterdir())
    total_bytes = sum(file.stat().st_size for file in files)
    print(f"{builder.data_dir}: {len(files)} files, {total_bytes} bytes")


if __name__ == "__main__":
    main()
