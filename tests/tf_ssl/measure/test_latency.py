"""Order of runs, statistics, what is compiled: no test depends on speed."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_ssl.graph.layer_calls import record
from tf_ssl.measure import latency

layers = keras.layers


def _model():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(images)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(images, layers.Dense(2, name="dense")(x))


def test_summary_is_median_and_quartiles():
    times = np.random.default_rng(0).exponential(size=101)
    ordered = np.sort(times)
    found = latency.summary(times)
    assert found.median_ms == ordered[50]
    assert found.spread_ms == pytest.approx(ordered[75] - ordered[25])
    assert found.num_runs == 101
    assert str(latency.Latency(1.5, 0.25, 3)) == "1.500 ± 0.250 ms"


def test_in_turn_runs_all_in_every_round():
    ran = []
    functions = {
        key: lambda key=key: ran.append((key, gc.isenabled()))
        for key in ("a", "b", "c")
    }
    found = latency.in_turn(functions, 0.0, min_rounds=20, warm_up=2)
    assert {k: v.num_runs for k, v in found.items()} == dict.fromkeys("abc", 20)
    keys = [key for key, _ in ran]
    rounds = [tuple(keys[i : i + 3]) for i in range(0, len(keys), 3)]
    assert len(rounds) == 22
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds[2:])) > 3  # all six orders are drawn alike
    assert not any(collects for _, collects in ran[6:])
    assert gc.isenabled()


def test_in_turn_goes_on_for_the_time():
    found = latency.in_turn({"a": lambda: None}, 0.05)
    assert found["a"].num_runs > 5


def test_in_turn_turns_collection_on_again():
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        latency.in_turn({"a": fail}, 0.0, warm_up=0)
    assert gc.isenabled()


def test_times_are_milliseconds(monkeypatch):
    clock = iter(np.arange(0, 10_000, 0.5))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    found = latency.in_turn({"a": lambda: None}, 0.0)
    assert found["a"].median_ms == 500


def test_measure_latency():
    models = {"one": _model(), "other": _model()}
    found = latency.measure_latency(models, batch_sizes=(1, 3), seconds=0.0)
    assert {k: list(v) for k, v in found.items()} == {
        "one": [1, 3],
        "other": [1, 3],
    }
    assert found["one"][3].num_runs == 5
    assert found["one"][3].median_ms > 0


def test_inference_computes_what_the_model_does():
    model = _model()
    inputs = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    (outputs,) = latency.inference(model, inputs)()
    np.testing.assert_allclose(
        outputs, model(inputs, training=False), rtol=1e-5, atol=1e-6
    )


def test_layers_alone_see_the_shapes_of_the_model():
    model = _model()
    calls = record(model, np.zeros((2, 8, 8, 3), np.float32))
    noise = {}
    for call in calls:
        (outputs,) = latency.layer_alone([call], noise)()
        assert tuple(outputs.shape) == call.output_shapes[0]
        assert np.isfinite(outputs).all()
    # conv, norm and dense read images of 8 x 8, and 6 x 6 twice.
    assert [shape for shape, _ in noise] == [(2, 8, 8, 3), (2, 6, 6, 4)]


def test_layers_alone_with_integers_masks_and_states():
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True, name="words")(words)
    x = layers.LSTM(3, return_sequences=True, name="lstm")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = keras.Model(words, x)
    calls = record(model, np.ones((2, 6), np.int32))
    for name in ("words", "lstm", "attention"):
        (call,) = (c for c in calls if c.name == name)
        (outputs,) = latency.layer_alone([call])()
        assert tuple(outputs.shape) == call.output_shapes[0]


def test_a_layer_that_is_called_twice():
    dense = layers.Dense(4, name="dense")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, dense(dense(inputs)))
    calls = record(model, np.zeros((2, 4), np.float32))
    assert len(latency.layer_alone(calls)()) == 2


def test_nothing_is_left_in_the_model():
    inputs = keras.Input((4,))
    outputs = layers.Dense(4, activity_regularizer="l2")(inputs)
    model = keras.Model(inputs, outputs)
    latency.measure_latency(model, batch_sizes=(1,), seconds=0.0)
    latency.layer_alone(record(model, np.zeros((2, 4), np.float32)))()
    assert model.losses == []


def test_inputs_are_no_constants_of_the_graph():
    model = _model()
    function = latency.inference(model, np.zeros((1, 8, 8, 3), np.float32))
    concrete = next(
        cell.cell_contents
        for cell in function.__closure__
        if hasattr(cell.cell_contents, "graph")
    )
    assert isinstance(concrete.graph, tf.Graph)
    assert tuple(concrete.inputs[0].shape) == (1, 8, 8, 3)
    assert concrete.inputs[0].op.type == "Placeholder"


@pytest.mark.parametrize("sizes", [(), (0,), (1, 2.0), 4, (True,)])
def test_refuses_batch_sizes(sizes):
    with pytest.raises(ValueError) as error:
        latency.measure_latency(_model(), batch_sizes=sizes)
    assert str(error.value) == (
        "Invalid value for argument batch_sizes. Expected a sequence of "
        f"integers >= 1. Received: batch_sizes={sizes!r}"
    )


@pytest.mark.parametrize("seconds", [-1, float("inf"), "1"])
def test_refuses_times(seconds):
    with pytest.raises(ValueError) as error:
        latency.measure_latency(_model(), seconds=seconds)
    assert str(error.value) == (
        "Invalid value for argument seconds. Expected a finite number >= 0. "
        f"Received: seconds={seconds!r}"
    )
