"""Tests of tf_ssl/layers: against Keras' Conv2D and Dense."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import custom_ops
from custom_ops import library
from tf_ssl.sparse.layers import SparseConv2D, SparseDense

layers = keras.layers


@pytest.fixture(params=["c++", "fallback"])
def implementation(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setattr(library, "ops", lambda: None)
    elif library.ops() is None:
        pytest.skip("the C++ ops are not built")
    return request.param


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_zeros(layer, shape, density=0.3):
    """The layer, built, with random zeros and a bias."""
    layer.build((None, *shape))
    kernel = noise(*layer.kernel.shape, seed=1)
    kernel[np.random.default_rng(2).random(kernel.shape) > density] = 0
    layer.kernel.assign(kernel)
    if layer.use_bias:
        layer.bias.assign(noise(*layer.bias.shape, seed=3))
    return layer


def sparse(layer, **options):
    if isinstance(layer, layers.Dense):
        return SparseDense.from_dense(layer, **options)
    return SparseConv2D.from_conv(layer, **options)


CONVS = [
    {},
    {"padding": "same", "strides": 2, "activation": "relu"},
    {"strides": (1, 2), "groups": 2, "use_bias": False},
    {"padding": "same", "dilation_rate": (2, 1), "activation": "tanh"},
    {"kernel_size": 1, "activation": "gelu"},
]


@pytest.mark.parametrize("options", CONVS)
def test_convolution(implementation, options):
    conv = layers.Conv2D(8, **{"kernel_size": (3, 2), **options})
    layer = sparse(with_zeros(conv, (9, 8, 6)))
    x = noise(3, 9, 8, 6)
    expected = conv(x)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert layer.name == conv.name
    np.testing.assert_array_equal(layer.to_dense(), conv.kernel)
    assert layer.num_nonzeros == np.count_nonzero(conv.kernel)


def test_channels_first(implementation):
    last = with_zeros(layers.Conv2D(8, 3, padding="same"), (9, 8, 6))
    layer = SparseConv2D(
        8,
        3,
        np.count_nonzero(last.kernel),
        padding="same",
        data_format="channels_first",
    )
    layer.build((None, 6, 9, 8))
    layer.assign_kernel(last.kernel, last.bias)
    x = noise(2, 9, 8, 6)
    y = layer(np.moveaxis(x, 3, 1))
    np.testing.assert_allclose(
        np.moveaxis(y, 1, 3), last(x), rtol=1e-5, atol=1e-5
    )
    assert layer.compute_output_shape((None, 6, 9, 8)) == (None, 8, 9, 8)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6)])
def test_dense(implementation, shape):
    dense = with_zeros(layers.Dense(7, activation="relu"), shape)
    layer = sparse(dense)
    for batch in (1, 4):
        x = noise(batch, *shape)
        np.testing.assert_allclose(layer(x), dense(x), rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape((None, *shape)) == (
        *(None, *shape[:-1]),
        7,
    )


@pytest.mark.parametrize("values_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "layer", [layers.Conv2D(8, 3, activation="relu"), layers.Dense(5)]
)
def test_keras_file(implementation, tmp_path, values_dtype, layer):
    layer = type(layer).from_config(layer.get_config())
    shape = (9, 8, 6) if isinstance(layer, layers.Conv2D) else (6,)
    inner = sparse(with_zeros(layer, shape), values_dtype=values_dtype)
    assert inner.values.dtype == values_dtype
    model = keras.Sequential([keras.Input(shape), inner])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is type(inner)
    assert loaded.layers[0].get_config() == inner.get_config()
    x = noise(2, *shape)
    np.testing.assert_array_equal(loaded(x), model(x))
    tolerance = 1e-5 if values_dtype == "float32" else 2e-2
    np.testing.assert_allclose(
        model(x), layer(x), rtol=tolerance, atol=10 * tolerance
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_other_dtypes(implementation, policy):
    conv = with_zeros(layers.Conv2D(8, 3, dtype=policy), (9, 8, 6))
    layer = sparse(conv)
    y = layer(noise(2, 9, 8, 6))
    assert keras.backend.standardize_dtype(y.dtype) == conv.compute_dtype
    expected = keras.ops.cast(conv(noise(2, 9, 8, 6)), "float32")
    np.testing.assert_allclose(
        keras.ops.cast(y, "float32"), expected, rtol=5e-2, atol=5e-2
    )


def test_learns_as_a_masked_layer(implementation):
    """A dense layer whose kernel's zeros are held at zero by a constraint."""
    conv = with_zeros(layers.Conv2D(8, 3, activation="relu"), (9, 8, 6))
    mask = keras.ops.cast(conv.kernel.numpy() != 0, "float32")
    conv.kernel.constraint = lambda kernel: kernel * mask
    x, y = noise(16, 9, 8, 6), noise(16, 7, 6, 8)
    models = []
    for layer in (sparse(conv), conv):
        model = keras.Sequential([keras.Input((9, 8, 6)), layer])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        models.append(model)
    learned, masked = (model.layers[0] for model in models)
    assert not models[0].jit_compile
    np.testing.assert_allclose(
        learned.to_dense(), masked.kernel, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(learned.bias, masked.bias, rtol=1e-3, atol=1e-4)


def test_keras_does_not_compile_it_by_xla():
    conv = with_zeros(layers.Conv2D(8, 3), (9, 8, 6))
    model = keras.Sequential([keras.Input((9, 8, 6)), sparse(conv)])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile
    compiled = tf.function(model, jit_compile=True)
    x = noise(2, 9, 8, 6)
    np.testing.assert_allclose(compiled(x), conv(x), rtol=1e-4, atol=1e-5)


def test_regularizers_that_come_along():
    regularizer = keras.regularizers.L2(0.1)
    conv = with_zeros(
        layers.Conv2D(8, 3, kernel_regularizer=regularizer), (9, 8, 6)
    )
    layer = sparse(conv)
    np.testing.assert_allclose(layer.losses[0], conv.losses[0], rtol=1e-5)
    conv.kernel_regularizer = keras.regularizers.OrthogonalRegularizer()
    assert sparse(conv).values_regularizer is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"padding": "causal"},
            "Invalid value for argument padding. Expected one of {'valid', "
            "'same'}. Received: padding='causal'",
        ),
        (
            {"num_nonzeros": -1},
            "Invalid value for argument num_nonzeros. Expected an integer >= "
            "0. Received: num_nonzeros=-1",
        ),
        (
            {"strides": (1, 2, 3)},
            "Invalid value for argument strides. Expected an integer >= 1, or "
            "two. Received: strides=(1, 2, 3)",
        ),
        (
            {"values_dtype": "int8"},
            "Invalid value for argument values_dtype. Expected one of "
            "{'float32', 'bfloat16'}. Received: values_dtype='int8'",
        ),
        (
            {"data_format": "NHWC"},
            "Invalid value for argument data_format. Expected one of "
            "{'channels_last', 'channels_first'}. Received: "
            "data_format='NHWC'",
        ),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        SparseConv2D(
            **{
                "filters": 4,
                "kernel_size": 3,
                "num_nonzeros": 5,
                **arguments,
            }
        )
    assert str(error.value) == message


def test_what_does_not_fit():
    with pytest.raises(ValueError) as error:
        SparseDense(3, 20, name="fc").build((None, 6))
    assert str(error.value) == (
        "fc has num_nonzeros=20 in a kernel of the shape (6, 3) with 18 "
        "elements"
    )
    with pytest.raises(ValueError) as error:
        SparseConv2D(4, 3, 5, groups=2, name="conv").build((None, 8, 8, 3))
    assert str(error.value) == (
        "conv: 3 channels and 4 filters do not divide into groups=2"
    )
    layer = SparseDense(3, 2)
    layer.build((None, 6))
    with pytest.raises(ValueError) as error:
        layer.assign_kernel(np.ones((6, 3)))
    assert str(error.value) == (
        "Invalid value for argument kernel. Expected the shape (6, 3) with 2 "
        "non-zeros. Received: (6, 3) with 18"
    )


def test_sparse_kernels_run_whatever_the_plan_says():
    """`sparsify` has measured: the layer does not ask the model again."""
    if custom_ops.status()["implementation"] != "c++":
        pytest.skip("the C++ ops are not built")
    conv = with_zeros(layers.Conv2D(8, 3), (9, 8, 6), density=0.99)
    kernel = conv.kernel.numpy()
    kernel[:, :, 0] = 0
    conv.kernel.assign(kernel)
    x = noise(1, 9, 8, 6)
    x[..., 0] = np.nan
    assert np.isfinite(sparse(conv)(x)).all()
