"""Variables and arrays as layers."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_ssl.graph.sources import Constant, Rows, Source, Weight, weight_like


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Weight((2, 3), "w", name="layer"),
        lambda: Weight((2,), "n", "int32", False, name="layer"),
        lambda: Weight((2,), "w", "float32", dtype="mixed_float16"),
        lambda: Weight((2,), "w", dtype="float64"),
        lambda: Weight((), "w"),
        lambda: Constant([[0, 1]], "int32", name="layer"),
        lambda: Constant(np.ones((2, 2), bool)),
        lambda: Constant(np.ones((1, 3), "float64")),
        lambda: Constant(np.array(2.5, "float32")),
    ],
)
def test_round_trip(layer, tmp_path):
    made = layer()
    for variable in made.variables:
        variable.assign(
            np.arange(variable.value.shape.num_elements()).reshape(
                variable.shape
            )
        )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, made(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((4, 3))
    assert again(x).dtype == model(x).dtype
    # What is computed is what was said of it.
    assert keras.backend.standardize_dtype(model(x).dtype) == (
        model.outputs[0].dtype
    )
    assert tuple(model(x).shape) == model.outputs[0].shape
    np.testing.assert_array_equal(again(x), model(x))
    for old, new in zip(model.variables, again.variables, strict=True):
        assert (old.name, old.dtype, old.trainable) == (
            new.name,
            new.dtype,
            new.trainable,
        )


def test_weight_like_a_variable():
    variable = keras.Variable(np.ones(3, "float32"), name="v", trainable=False)
    variable.regularizer = keras.regularizers.L2(0.5)
    variable.constraint = keras.constraints.NonNeg()
    made = weight_like(Source(variable, "float16"), np.arange(2.0), "layer")
    value = made.value
    assert (made.name, value.name, value.dtype) == ("layer", "v", "float32")
    assert value.regularizer is variable.regularizer
    assert value.constraint is variable.constraint
    assert not value.trainable
    assert made(np.ones(1)).dtype == "float16"
    np.testing.assert_array_equal(made(np.ones(1)), [0, 1])


@pytest.mark.parametrize("batch", [1, 2, 3, 6])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "bool"])
def test_rows(batch, dtype):
    row = ops.cast(np.arange(2)[None], dtype)
    anchor = np.full((batch, 2, 3), np.nan, "float32")
    made = Rows()(row, anchor)
    assert made.dtype == row.dtype
    np.testing.assert_array_equal(
        made, np.repeat(ops.convert_to_numpy(row), batch, 0)
    )


def test_source_is_its_value_as_it_is_now():
    variable = keras.Variable(np.ones(2, "float32"))
    source = Source(variable, "float16")
    variable.assign([2, 3])
    np.testing.assert_array_equal(source(np.ones(1)), [2, 3])
    assert source(np.ones(1)).dtype == "float16"
    assert source.variable is variable
    assert Source(np.ones(2)).variable is None
