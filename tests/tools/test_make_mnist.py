"""Reading IDX files; data/ itself is checked by tests/data/test_mnist.py."""

import gzip
import struct

import numpy as np
import pytest

from tools import make_mnist

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = bytes([0, 0, 8, 3]) + struct.pack(">3i", 2, 3, 4) + IMAGES.tobytes()


@pytest.mark.parametrize(
    "name, content",
    [("images", CONTENT), ("images.gz", gzip.compress(CONTENT, mtime=0))],
)
def test_read_idx(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    np.testing.assert_array_equal(make_mnist.read_idx(path), IMAGES)


def test_read_idx_of_another_type(tmp_path):
    path = tmp_path / "floats"
    path.write_bytes(bytes([0, 0, 0x0D, 1]) + bytes(8))
    with pytest.raises(ValueError) as error:
        make_mnist.read_idx(path)
    assert str(error.value) == (
        "Expected an IDX file of unsigned bytes. Received: "
        f"{path} starting with b'\\x00\\x00\\r'"
    )


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        make_mnist.prepare(tmp_path, tmp_path / "data")
    assert str(error.value) == (
        "No MNIST file train-images-idx3-ubyte.gz or train-images-idx3-ubyte. "
        f"Looked in: {tmp_path}"
    )
