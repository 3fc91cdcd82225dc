"""Tests of tf_ssl/graph/check.py."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.graph.layer_cases import L, noise
from tf_ssl.graph.check import (
    check,
    differences,
    state_of,
    tolerance_of,
    values_assigned,
)
from tf_ssl.graph.copying.live_copy import copy_layer


class Rare(L.Layer):
    """Variables of all types, of which some change in each call."""

    def build(self, shape):
        self.kept = [
            self.add_weight(
                shape=(3,),
                dtype=dtype,
                initializer=lambda shape, dtype: tf.cast([0.0, 1, 2], dtype),
                trainable=False,
            )
            for dtype in ("bfloat16", "float16", "float8_e4m3fn", "int8")
        ]
        self.kept.append(
            self.add_weight(dtype="bool", initializer="zeros", name="flag")
        )
        self.count = self.add_weight(dtype="int64", initializer="zeros")
        self.mean = keras.metrics.Mean()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x):
        self.count.assign_add(1)
        self.mean.update_state(x)
        return x * keras.random.uniform(keras.ops.shape(x), seed=self.seed)


def bits(model):
    return [tf.identity(v._value).numpy().tobytes() for v in state_of(model)]


def with_states():
    x = keras.Input(batch_shape=(2, 5, 4))
    y = L.LSTM(3, stateful=True, return_sequences=True)(x)
    model = keras.Model(x, L.BatchNormalization()(Rare()(y)))
    model(noise(2, 5, 4))
    return model


def dense(**kwargs):
    return keras.Sequential([keras.Input((4,)), L.Dense(3, **kwargs)])


@pytest.mark.parametrize("fails", [False, True])
def test_all_variables_are_put_back_to_the_bit(fails):
    model = with_states()
    before = bits(model)
    assert len(before) == 19
    kernel = model.layers[1].cell.kernel
    try:
        with values_assigned(model, [(kernel, np.zeros(kernel.shape))]):
            assert not kernel.numpy().any()
            model(noise(2, 5, 4), training=True)
            changed = bits(model)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert sum(a != b for a, b in zip(before, changed, strict=True)) == 9
    assert bits(model) == before


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn", "int8", "bool"]
)
def test_numbers_are_rounded_to_the_variable_s_type(dtype):
    ones = tf.cast([1.0, 1.0], dtype)
    variable = keras.Variable(ones, dtype=dtype, trainable=False)
    with values_assigned(dense(), [(variable, np.array([0.0, 1.0]))]):
        assert variable.dtype == dtype
        assert variable.numpy().astype(np.float32).tolist() == [0, 1]
    assert variable.numpy().astype(np.float32).tolist() == [1, 1]


def test_an_autocast_scope_does_not_round_what_is_put_back():
    layer = L.Dense(3, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.kernel.assign(noise(4, 3))

    class Inner(L.Layer):
        def call(self, x):
            with values_assigned(model, []):
                return x

    Inner(dtype="mixed_bfloat16")(noise(1, 2))
    np.testing.assert_array_equal(layer.kernel.numpy(), noise(4, 3))


def test_values_count_and_states_do_not_move():
    model = with_states()
    other = copy_layer(model)
    kernel = model.layers[1].cell.kernel
    before = bits(model), bits(other)
    value = 2 * kernel.numpy()
    assert differences(model, [], other, noise(2, 5, 4)) == [0.0]
    (difference,) = differences(model, [(kernel, value)], other, noise(2, 5, 4))
    assert difference > 0.01
    assert (bits(model), bits(other)) == before
    other.layers[1].cell.kernel.assign(value)
    assert differences(model, [(kernel, value)], other, noise(2, 5, 4)) == [0]


def test_state_of_a_model_after_fit():
    model = dense()
    model.compile("adam", "mse")
    model.fit(noise(4, 4), noise(4, 3), verbose=0)
    assert {id(v) for v in model.variables} <= {id(v) for v in state_of(model)}


def test_training_flag_is_off():
    class Doubles(L.Layer):
        def call(self, x, training=True):
            return 2 * x if training else x

    model = keras.Sequential([keras.Input((4,)), Doubles()])
    assert differences(model, [], dense_of_ones(), noise(2, 4)) == [0.0]


def dense_of_ones():
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, use_bias=False)])
    model.layers[0].kernel.assign(np.eye(4))
    return model


def two_outputs(add=0.0, by=1):
    x = keras.Input((4,))
    outputs = {
        "float": L.Lambda(lambda x: x + add, name="f")(x),
        "int": L.Lambda(
            lambda x: keras.ops.cast(x * 0, "int32") + by, name="i"
        )(x),
    }
    return keras.Model(x, outputs)


def test_each_output_for_itself():
    x = np.array([[1.0, -4, 2, 0]], np.float32)
    assert differences(two_outputs(), [], two_outputs(1.0), x) == [0.25, 0]
    assert differences(two_outputs(), [], two_outputs(by=2), x) == [0, np.inf]


@pytest.mark.parametrize("same, expected", [(True, 0.0), (False, np.inf)])
def test_strings_compare_exactly(same, expected):
    a, b = (
        L.StringLookup(vocabulary=words, invert=True)
        for words in (["a", "b"], ["a", "b" if same else "c"])
    )
    x = keras.Input((2,), dtype="int64")
    found = differences(
        keras.Model(x, a(x)), [], keras.Model(x, b(x)), np.array([[1, 2]])
    )
    assert found == [expected]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_short_outputs(dtype):
    model = dense(dtype=dtype)
    other = copy_layer(model)
    assert differences(model, [], other, noise(2, 4)) == [0.0]
    other.layers[0].bias.assign([0.5, 0, 0])
    (difference,) = differences(model, [], other, noise(2, 4))
    assert 0.05 < difference < 5


def through(function):
    x = keras.Input((4,))
    return keras.Model(x, L.Lambda(function, name="out")(x), name="m")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_to_compare(bad):
    model = through(lambda x: x * bad)
    message = (
        "Output 0 (out) of m holds NaN or infinities on these inputs, where "
        "nothing can be compared. If they are random input: pass sample=, an "
        "example of the model's input on which its outputs are finite."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        differences(model, [], model, noise(2, 4))
    finite = through(lambda x: x)
    assert differences(finite, [], model, noise(2, 4)) == [np.inf]


def test_masked_scores_are_equal_in_both():
    def masked(x, by=1.0):
        return keras.ops.where(x > 1, -np.inf, x * by)

    model, x = through(masked), np.array([[2.0, 1, 0, -1]], np.float32)
    assert differences(model, [], through(masked), x) == [0.0]
    half = through(lambda x: masked(x, 0.5))
    assert differences(model, [], half, x) == [0.5]
    assert differences(through(lambda x: x), [], model, x) == [np.inf]
    with pytest.raises(ValueError, match="holds NaN or infinities"):
        differences(model, [], through(lambda x: x), x)


def test_other_shapes():
    model = dense()
    other = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    message = (
        "Expected outputs of the same shape. Received: output 0 (dense) with "
        "shapes (2, 3) and (2, 2)"
    )
    model.output_names = ["dense"]
    with pytest.raises(ValueError, match=re.escape(message)):
        differences(model, [], other, noise(2, 4))


def test_check_returns_the_largest_or_names_it():
    x = np.array([[1.0, -4, 2, 0]], np.float32)
    assert check(two_outputs(), [], two_outputs(4e-6), x) < 1e-5
    message = (
        "Output 0 (f) of the folded model differs from that of m by 2.5e-01 "
        "(max|a - b| / max|a|), more than tolerance=1.0e-05."
    )
    model = two_outputs()
    model.name = "m"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        check(model, [], two_outputs(1.0), x, what="folded")
    assert check(model, [], two_outputs(1.0), x, tolerance=0.3) == 0.25
    with pytest.raises(RuntimeError, match="differs"):
        check(through(lambda x: x), [], through(lambda x: x * np.nan), x)


@pytest.mark.parametrize(
    "dtype, expected",
    [
        ("float64", 1e-10),
        ("float32", 1e-5),
        ("mixed_float16", 5e-3),
        ("float16", 5e-3),
        ("mixed_bfloat16", 4e-2),
    ],
)
def test_tolerance_of_the_coarsest_layer(dtype, expected):
    x = keras.Input((4,), dtype="float64")
    y = L.Dense(3, dtype=dtype)(L.Dense(3, dtype="float64")(x))
    assert tolerance_of(keras.Model(x, L.Dense(2, dtype="float64")(y))) == (
        expected
    )


def test_tolerance_with_tf32(monkeypatch):
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: ["GPU:0"]
    )
    assert tolerance_of(dense()) == 5e-3
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        assert tolerance_of(dense()) == 1e-5
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)
    assert tolerance_of(dense(dtype="float64")) == 1e-10
