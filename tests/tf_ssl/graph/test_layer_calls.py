"""What is recorded, and that the model is left as it was."""

import keras
import numpy as np
import tensorflow as tf

from tf_ssl.graph.layer_calls import operations, record

layers = keras.layers


def _model():
    inputs = keras.Input((6,), name="inputs")
    x = layers.Dense(4, name="dense")(inputs)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, x + layers.Dense(4, name="other")(inputs))


def test_calls():
    model = _model()
    calls = record(model, np.zeros((3, 6), np.float32))
    by_name = {call.name: call for call in calls}
    assert [c for c in by_name if c in ("dense", "drop", "norm")] == [
        "dense",
        "drop",
        "norm",
    ]
    assert by_name["dense"].input_shapes == [(3, 6)]
    assert by_name["dense"].output_shapes == [(3, 4)]
    assert by_name["dense"].reads == ()
    # Dropout passes on what it got: still the output of dense.
    assert by_name["norm"].reads == ("dense",)
    (add,) = (c for c in calls if type(c.layer).__name__ == "Add")
    assert set(add.reads) == {"norm", "other"}
    assert by_name["norm"].argument("training") is False


class MakesVariableLate(layers.Layer):
    late = None

    def call(self, x):
        if self.late is None:
            object.__setattr__(self, "late", tf.Variable(1.0))
        return x * self.late


def test_calls_once_where_a_first_call_makes_variables():
    # TensorFlow then traces twice.
    inputs = keras.Input((2,))
    layer = MakesVariableLate()
    model = keras.Model(inputs, layers.Dense(3, name="dense")(layer(inputs)))
    object.__setattr__(layer, "late", None)
    calls = record(model, np.zeros((1, 2), np.float32))
    assert [call.name for call in calls] == [layer.name, "dense"]
    assert calls[1].reads == (layer.name,)


def test_calls_inside_layers():
    inputs = keras.Input((5, 3))
    layer = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")
    calls = record(keras.Model(inputs, layer(inputs)), np.zeros((1, 5, 3)))
    assert calls[0].name == "both"
    assert calls[0].inside == ()
    inner = {c.name: c.inside for c in calls[1:]}
    assert inner["both/forward_lstm"] == ("both",)
    assert inner["both/backward_lstm"] == ("both",)


def test_the_model_is_left_as_it_was():
    model = _model()
    model.get_layer("dense").activity_regularizer = keras.regularizers.L2(0.1)
    before = [dict(vars(op)) for _, op in operations(model)]
    weights = model.get_weights()
    record(model, np.zeros((3, 6), np.float32))
    for (_, operation), attributes in zip(
        operations(model), before, strict=True
    ):
        assert "call" not in vars(operation)
        assert vars(operation).keys() == attributes.keys()
    assert model.losses == []
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_model_is_left_as_it_was_after_an_error():
    model = _model()
    try:
        record(model, np.zeros((3, 7), np.float32))
    except Exception:
        pass
    else:
        raise AssertionError("An input of the wrong size was taken.")
    assert all("call" not in vars(op) for _, op in operations(model))


def test_operations_once_with_names():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="dense")], name="inner"
    )
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.ops.relu(inner(inner(inputs))))
    names = [name for name, _ in operations(model)]
    assert names[0] == "inner/dense"
    assert len(names) == 2 and names[1].startswith("relu")
