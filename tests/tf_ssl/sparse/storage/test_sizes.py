"""Tests of tf_ssl/storage/sizes.py."""

import gzip

import keras
import numpy as np

from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.sparse.layers import SparseConv2D
from tf_ssl.sparse.storage import sizes

layers = keras.layers


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(32, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(3, name="logits"),
        ]
    )
    kernel = model.layers[0].kernel.numpy()
    kernel[:, :, 8:] = 0  # half of the columns
    kernel[..., 24:] = 0  # a quarter of the rows
    model.layers[0].kernel.assign(kernel)
    return model


def test_bytes_of_a_kernel():
    model = network()
    found = sizes(model)
    conv, logits = found.kernels
    alive = 9 * 8 * 24
    assert (conv.name, conv.elements) == ("conv/kernel", 9 * 16 * 32)
    assert conv.zeros == conv.elements - alive
    assert conv.dense == 4 * conv.elements
    assert conv.removed == 4 * alive
    # A column index of 144 takes a byte, a start up to 1,728 takes two.
    assert conv.csr_indices == alive + 2 * 33
    assert conv.csr == 4 * alive + conv.csr_indices
    assert conv.block_shape == (8, 8)
    assert conv.block == 4 * alive + alive // 64 + 5
    kernel = model.layers[0].kernel.numpy()
    assert len(gzip.compress(kernel.tobytes(), mtime=0)) == conv.gzip
    assert logits.block is None
    assert found.others == 4 * (32 + 3)
    total = found.total
    assert total.dense == conv.dense + logits.dense
    assert total.block == conv.block + logits.csr


def test_of_a_sparsified_model_it_is_the_same():
    model = network()
    conv = model.layers[0]
    new = replace_layers(model, {conv: [SparseConv2D.from_conv(conv)]})
    assert sizes(new).others == sizes(model).others
    assert sizes(new).total == sizes(model).total


def test_table():
    lines = str(sizes(network())).splitlines()
    assert lines[0].split("  ")[0] == "kernel"
    assert [line.split()[0] for line in lines[2:5]] == [
        "conv/kernel",
        "logits/kernel",
        "total",
    ]
    assert "62.5%" in lines[2]
    assert "6,912 (2.67x)" in lines[2]
    assert lines[5] == (
        "bytes, times smaller than dense; other weights: 140 bytes"
    )


def test_all_zero():
    layer = layers.Dense(4, kernel_initializer="zeros", name="fc")
    found = sizes(keras.Sequential([keras.Input((8,)), layer]))
    assert found.total.removed == 0
    assert np.isclose(found.total.zeros, 32)
    assert "100.0%" in str(found)
