import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.graph.inputs import inputs_for, static_batch

layers = keras.layers


def test_structure_types_and_sizes():
    inputs = {
        "image": keras.Input((4, 3), name="image"),
        "mask": keras.Input((2,), dtype="bool", name="mask"),
        "half": keras.Input((2,), dtype="float16", name="half"),
    }
    outputs = layers.Flatten()(inputs["image"])
    model = keras.Model(inputs, outputs)
    drawn = inputs_for(model, 5)
    assert {k: (v.shape, v.dtype.name) for k, v in drawn.items()} == {
        "image": ((5, 4, 3), "float32"),
        "mask": ((5, 2), "bool"),
        "half": ((5, 2), "float16"),
    }
    again = inputs_for(model, 5)
    np.testing.assert_array_equal(drawn["image"], again["image"])


def test_integers_are_below_the_embedding_that_reads_them():
    words = keras.Input((200,), dtype="int32")
    kinds = keras.Input((200,), dtype="int32")
    inner_in = keras.Input((200,), dtype="int32")
    inner = keras.Model(inner_in, layers.Embedding(50, 2)(inner_in))
    outputs = inner(words) + layers.Embedding(3, 2)(kinds)
    model = keras.Model([words, kinds], outputs)
    drawn = inputs_for(model, 4)
    assert drawn[0].max() == 49
    assert drawn[1].max() == 2


def test_integers_that_reach_embeddings_in_another_way():
    words = keras.Input((200,), dtype="int32")
    first = layers.Embedding(5, 2)(keras.ops.flip(words, axis=1))
    second = layers.Embedding(30, 2)(words + 0)
    drawn = inputs_for(keras.Model(words, first + second), 4)
    assert drawn.max() == 4


def test_samples_are_repeated_or_cut():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    sample = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(
        inputs_for(model, 4, sample), sample[[0, 1, 2, 0]]
    )
    np.testing.assert_array_equal(inputs_for(model, 2, sample), sample[:2])


def test_samples_get_the_types_of_the_model():
    words = keras.Input((2,), dtype="int32", name="words")
    model = keras.Model(words, layers.Embedding(9, 3)(words), name="net")
    drawn = inputs_for(model, 2, np.array([[1.0, 2.0]]))
    assert drawn.dtype == np.int32
    np.testing.assert_array_equal(drawn, [[1, 2], [1, 2]])


def test_refuses_samples():
    first, second = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([first, second], first + second, name="net")
    with pytest.raises(ValueError) as error:
        inputs_for(model, 2, np.zeros((3, 2)))
    assert str(error.value) == (
        "Invalid value for argument sample. Expected 2 arrays, for the inputs "
        "['a', 'b'] of net. Received: 1 arrays"
    )
    with pytest.raises(ValueError) as error:
        inputs_for(model, 2, [np.zeros((3, 2)), np.zeros((0, 2))])
    assert str(error.value) == (
        "Invalid value for argument sample. Expected arrays with a batch axis "
        "and at least one example. Received: shapes [(3, 2), (0, 2)]"
    )


def test_sequential():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    assert inputs_for(model, 3).shape == (3, 2)
    assert static_batch(model) is None


def test_fixed_batch_size():
    images = keras.Input(batch_shape=(4, 2))
    model = keras.Model(images, layers.Dense(2)(images), name="net")
    assert static_batch(model) == 4
    assert inputs_for(model, 4).shape == (4, 2)
    with pytest.raises(ValueError) as error:
        inputs_for(model, 1)
    assert str(error.value) == (
        "Invalid value for argument batch_size. Expected 4, the batch size "
        "that net was built for. Received: batch_size=1"
    )


class _Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(7, 2)

    def call(self, inputs):
        return self.words(inputs["words"]) + inputs["more"]


class _Opaque(keras.Model):
    def call(self, inputs):
        return tf.reverse(inputs, axis=[-1])


def test_subclassed_models():
    model = _Subclass()
    model({"words": np.ones((2, 5), "int32"), "more": np.zeros((2, 5, 2))})
    drawn = inputs_for(model, 3)
    assert {k: v.shape for k, v in drawn.items()} == {
        "words": (3, 5),
        "more": (3, 5, 2),
    }


def test_subclasses_that_do_not_open_need_a_sample():
    model = _Opaque(name="net")
    model(np.zeros((1, 2)))
    with pytest.raises(ValueError) as error:
        inputs_for(model, 1)
    assert str(error.value) == (
        "Invalid value for argument sample. Expected an example of the model's "
        "input, for net is no Functional or Sequential model, and does not "
        "open on symbolic tensors. Received: sample=None"
    )
    sample = np.arange(4).reshape(2, 2)
    np.testing.assert_array_equal(inputs_for(model, 1, sample), sample[:1])


class _Tokens(keras.Layer):
    """Embeddings out of sight: ids are cast and counted from 1."""

    def __init__(self, rows, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Embedding(rows, 2)
        self.table = self.add_weight((3, 2), name="table")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, ids, kinds):
        ops = keras.ops
        found = self.inner(ops.cast(ids, "int32"))
        return found + ops.take(self.table, ops.squeeze(kinds, -1), axis=0)


def test_integers_are_followed_into_composite_layers():
    ids = keras.Input((200,), dtype="int64", name="ids")
    kinds = keras.Input((200, 1), dtype="int32", name="kinds")
    mask = keras.Input((200,), dtype="int32", name="padding_mask")
    pixels = keras.Input((200,), dtype="uint8", name="pixels")
    outputs = _Tokens(40)(ids, kinds)
    outputs *= keras.ops.cast(mask, "float32")[..., None]
    wrapped = layers.TimeDistributed(layers.Embedding(30, 2))
    more = wrapped(layers.Reshape((200, 1))(ids))
    model = keras.Model(
        [ids, kinds, mask, pixels],
        [outputs, more, keras.ops.cast(pixels, "float32")],
    )
    drawn = inputs_for(model, 9)
    assert [int(x.max()) for x in drawn[:3]] == [29, 2, 1]
    assert (drawn[2][:, 0] == 1).all() and (drawn[2] == 0).any()
    model(drawn)


def test_optional_inputs():
    first = keras.Input((2,), name="a")
    second = keras.Input((2,), name="b", optional=True)

    class Sum(keras.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    model = keras.Model([first, second], Sum()(first, second))
    sample = [np.arange(4).reshape(2, 2), None]
    drawn = inputs_for(model, 3, sample)
    assert drawn[1] is None and drawn[0].dtype == np.float32
    assert drawn[0].shape == (3, 2)
    assert [x.shape for x in inputs_for(model, 3)] == [(3, 2), (3, 2)]


def test_strings_need_a_sample():
    words = keras.Input((), dtype="string", name="words")
    model = keras.Model(words, layers.Hashing(4)(words))
    with pytest.raises(ValueError, match="and the type string. Received"):
        inputs_for(model, 1)
