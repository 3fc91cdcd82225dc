"""Tests of tf_ssl/storage/checkpoint.py."""

import keras
import numpy as np
import pytest

from tf_ssl.graph.replace_layers import replace_layers
from tf_ssl.sparse.layers import SparseConv2D, SparseDense
from tf_ssl.sparse.storage import load_sparse, save_sparse

layers = keras.layers


def network(dtype="float32"):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 16))
    x = layers.Conv2D(32, 3, name="scattered", dtype=dtype)(images)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(32, 1, name="blocks", dtype=dtype)(x)
    x = layers.Dropout(0.1, seed=1)(x)
    x = layers.Dense(10, name="full", dtype=dtype)(layers.Flatten()(x))
    model = keras.Model(images, x, name="network")
    random = np.random.default_rng(1)
    masks = {
        "scattered": random.random((3, 3, 16, 32)) < 0.1,
        "blocks": np.kron(
            random.random((1, 1, 32, 4)) < 0.2, np.ones((1, 1, 1, 8))
        ),
    }
    for name, mask in masks.items():
        kernel = model.get_layer(name).kernel
        value = keras.ops.convert_to_numpy(kernel)
        kernel.assign(np.where(mask, value, 0))
    model.get_layer("norm").moving_mean.assign(random.normal(size=32))
    return model


def sparsified(values_dtype="float32"):
    model = network()
    make = {
        layers.Conv2D: SparseConv2D.from_conv,
        layers.Dense: SparseDense.from_dense,
    }
    return replace_layers(
        model,
        {
            layer: [make[type(layer)](layer, values_dtype)]
            for layer in model.layers
            if type(layer) in make
        },
    )


def bits(model):
    return [
        (v.name, keras.ops.convert_to_numpy(v).tobytes())
        for v in model.variables
    ]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (network, "float32"),
        (network, "bfloat16"),
        (network, "float16"),
        (sparsified, "float32"),
        (sparsified, "bfloat16"),
    ],
)
def test_the_same_to_the_bit(tmp_path, make, argument, compress):
    model = make(argument)
    path = save_sparse(model, tmp_path / "model.npz", compress=compress)
    loaded = load_sparse(path)
    assert bits(loaded) == bits(model)
    assert [type(x) for x in loaded.layers] == [type(x) for x in model.layers]
    assert loaded.name == "network"


def test_nan_minus_zero_and_weights_that_are_zero(tmp_path):
    model = sparsified()
    values = model.get_layer("scattered").values
    value = values.numpy()
    value[:4] = np.nan, -0.0, 0.0, np.inf
    values.assign(value)
    loaded = load_sparse(save_sparse(model, tmp_path / "model.npz"))
    assert bits(loaded) == bits(model)
    model = network()
    kernel = model.get_layer("scattered").kernel
    value = kernel.numpy()
    value.ravel()[:3] = np.nan, -0.0, np.inf
    kernel.assign(value)
    loaded = load_sparse(save_sparse(model, tmp_path / "model.npz"))
    assert bits(loaded) == bits(model)


def test_bytes(tmp_path):
    """Scattered: 4 bytes a value and 1 an index; of blocks of 8: an eighth."""
    model = network()
    path = save_sparse(model, tmp_path / "model.npz")
    with np.load(path) as file:
        sizes = {name: file[name].nbytes for name in file.files}
    header = sizes.pop("header")
    alive = {
        layer.name: np.count_nonzero(layer.kernel)
        for layer in model.layers
        if hasattr(layer, "kernel")
    }
    kernel = sum(size for name, size in sizes.items() if name[:2] == "0/")
    assert kernel == 5 * alive["scattered"] + 2 * 33
    blocks = [size for name, size in sizes.items() if name[:2] == "6/"]
    assert sum(blocks) == 4 * alive["blocks"] + alive["blocks"] // 8 + 5
    assert path.stat().st_size > sum(sizes.values()) + header
    dense = sum(keras.ops.convert_to_numpy(v).nbytes for v in model.variables)
    assert sum(sizes.values()) < dense - 0.8 * 4 * 3 * 3 * 16 * 32


def test_sequential_and_nested(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])
    loaded = load_sparse(save_sparse(model, tmp_path / "model.npz"))
    assert type(loaded) is keras.Sequential
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_bad_input(tmp_path):
    model = network()
    with pytest.raises(ValueError) as error:
        save_sparse(model, tmp_path / "model.keras")
    assert str(error.value) == (
        "Invalid value for argument path. Expected a path that ends in .npz. "
        f"Received: path={str(tmp_path / 'model.keras')!r}"
    )
    with pytest.raises(ValueError, match="Expected a built Functional or"):
        save_sparse(keras.Sequential([layers.Dense(2)]), tmp_path / "m.npz")
    path = tmp_path / "other.npz"
    message = (
        "Invalid value for argument path. Expected a file of "
        f"tf_ssl.storage.save_sparse. Received: path={str(path)!r}"
    )
    np.savez(path, values=np.ones(3))
    with pytest.raises(ValueError) as error:
        load_sparse(path)
    assert str(error.value) == message
    path.write_text("no archive")
    with pytest.raises(ValueError) as error:
        load_sparse(path)
    assert str(error.value) == message
    with pytest.raises(FileNotFoundError):
        load_sparse(tmp_path / "missing.npz")
