"""Kinds of kernels by layer class; where kernels are found."""

import keras
import pytest

from tf_ssl.structures.kernels import find_kernels

L = keras.layers


@pytest.mark.parametrize(
    "layer, shape, expected",
    [
        (L.Dense(3), [4], [("kernel", "dense", 1, "kernel_regularizer")]),
        (
            L.Conv1D(4, 3, groups=2),
            [8, 4],
            [("kernel", "conv", 2, "kernel_regularizer")],
        ),
        (
            L.Conv2D(4, 3),
            [8, 8, 4],
            [("kernel", "conv", 1, "kernel_regularizer")],
        ),
        (
            L.Conv2DTranspose(4, 3),
            [8, 8, 2],
            [("kernel", "transposed", 1, "kernel_regularizer")],
        ),
        (
            L.DepthwiseConv2D(3, depth_multiplier=2),
            [8, 8, 2],
            [("kernel", "depthwise", 1, "depthwise_regularizer")],
        ),
        (
            L.SeparableConv2D(4, 3),
            [8, 8, 2],
            [
                ("depthwise_kernel", "depthwise", 1, "depthwise_regularizer"),
                ("pointwise_kernel", "conv", 1, "pointwise_regularizer"),
            ],
        ),
        (
            L.LSTM(4),
            [5, 3],
            [
                ("kernel", "lstm", 1, "kernel_regularizer"),
                ("recurrent_kernel", "lstm", 1, "recurrent_regularizer"),
            ],
        ),
        (
            L.GRU(4),
            [5, 3],
            [
                ("kernel", "gru", 1, "kernel_regularizer"),
                ("recurrent_kernel", "gru", 1, "recurrent_regularizer"),
            ],
        ),
        (
            L.SimpleRNN(4),
            [5, 3],
            [
                ("kernel", "dense", 1, "kernel_regularizer"),
                ("recurrent_kernel", "dense", 1, "recurrent_regularizer"),
            ],
        ),
        (
            L.EinsumDense("abc,cd->abd", [None, 5]),
            [3, 4],
            [("kernel", "dense", 1, "kernel_regularizer")],
        ),
        (L.EinsumDense("abc,dc->abd", [None, 5]), [3, 4], []),
        (L.EinsumDense("abc,cde->abde", [None, 5, 2]), [3, 4], []),
        (L.BatchNormalization(), [3], []),
    ],
)
def test_layers(layer, shape, expected):
    model = keras.Sequential([keras.Input(shape), layer])
    found = find_kernels(model)
    assert [
        (k.variable.name, k.kind, k.conv_groups, k.regularizer_name)
        for k in found
    ] == expected
    assert all(hasattr(k.layer, k.regularizer_name) for k in found)


def test_embedding():
    model = keras.Sequential(
        [keras.Input([3], dtype="int32"), L.Embedding(5, 2)]
    )
    (found,) = find_kernels(model)
    assert (found.kind, found.regularizer_name) == (
        "embedding",
        "embeddings_regularizer",
    )
    assert found.variable is model.layers[0].embeddings


def test_inside_models_wrappers_and_subclasses():
    class Subclass(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.head = L.Dense(2, name="head")

        def call(self, x):
            return self.head(self.inner(x))

    inputs = keras.Input([5, 3])
    x = L.Bidirectional(L.LSTM(2, return_sequences=True), name="both")(inputs)
    shared = L.Dense(4, name="shared")
    x = L.TimeDistributed(shared, name="each")(x)
    x = shared(L.Dense(4, name="between")(x))
    model = Subclass(keras.Model(inputs, x))
    model(keras.ops.zeros([1, 5, 3]))

    found = [
        (kernel.layer.name, kernel.variable.name)
        for kernel in find_kernels(model)
    ]

    assert found == [
        ("lstm_cell", "kernel"),
        ("lstm_cell", "recurrent_kernel"),
        ("lstm_cell", "kernel"),
        ("lstm_cell", "recurrent_kernel"),
        ("shared", "kernel"),
        ("between", "kernel"),
        ("head", "kernel"),
    ]


def test_unbuilt_model():
    model = keras.Sequential([L.Dense(3)], name="new")
    with pytest.raises(ValueError) as error:
        find_kernels(model)
    assert str(error.value) == (
        "Invalid value for argument model. Expected a built model with "
        "weights: call it on data once, or model.build(input_shape). "
        "Received: model='new'"
    )


def test_no_model():
    with pytest.raises(TypeError) as error:
        find_kernels([1])
    assert str(error.value) == (
        "Invalid type for argument model. Expected a keras.Model. "
        "Received: model=[1]"
    )
