"""Pairs of small models: rows, totals, differences, table, JSON."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_ssl
from tf_ssl.measure.compare import compare
from tf_ssl.measure.comparison import (
    Comparison,
    LayerFacts,
    Pair,
    Row,
    Totals,
    _meaning,
)
from tf_ssl.measure.latency import Latency

layers = keras.layers


def _net(filters, units, seed=0, norm=True):
    keras.utils.set_random_seed(seed)
    images = keras.Input((12, 12, 1), name="images")
    x = layers.Conv2D(filters, 3, name="conv1")(images)
    if norm:
        x = layers.BatchNormalization(name="norm1")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", name="hidden")(x)
    return keras.Model(images, layers.Dense(2, name="logits")(x), name="net")


def _copy_with_dead_units_cut(model):
    """Hand-made `shrink`: filters 0 and 1 of 4, units 0 to 5 of 8 stay."""
    small = _net(2, 6)
    conv, norm, hidden, logits = (
        model.get_layer(name).get_weights()
        for name in ("conv1", "norm1", "hidden", "logits")
    )
    small.get_layer("conv1").set_weights([conv[0][..., :2], conv[1][:2]])
    small.get_layer("norm1").set_weights([w[:2] for w in norm])
    kernel = hidden[0].reshape(10, 10, 4, 8)[:, :, :2, :6].reshape(-1, 6)
    small.get_layer("hidden").set_weights([kernel, hidden[1][:6]])
    small.get_layer("logits").set_weights([logits[0][:6], logits[1]])
    return small


def _zeroed():
    model = _net(4, 8)
    conv, norm, logits = (
        model.get_layer(name) for name in ("conv1", "norm1", "logits")
    )
    kernel, bias = conv.get_weights()
    kernel[..., 2:] = 0
    conv.set_weights([kernel, bias])
    kernel, bias = logits.get_weights()
    kernel[6:] = 0
    logits.set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def found():
    model = _zeroed()
    small = _copy_with_dead_units_cut(model)
    return compare(model, small, batch_sizes=(1, 4), seconds=0.0)


def test_rows(found):
    assert [row.name for row in found.rows] == [
        "conv1",
        "norm1",
        "flatten",
        "hidden",
        "logits",
    ]
    conv, norm, flatten, hidden, _ = found.rows
    assert conv.before.kernels == ((3, 3, 1, 4),)
    assert conv.after.kernels == ((3, 3, 1, 2),)
    assert conv.before.outputs == ((10, 10, 4),)
    assert conv.after.multiply_adds == 100 * 9 * 2
    assert hidden.after.parameters == 200 * 6 + 6
    assert hidden.after.weight_bytes == 4 * (200 * 6 + 6)
    assert norm.before.multiply_adds is None
    assert norm.before.parameters == 16
    assert flatten.after.outputs == ((200,),)
    for row in found.rows:
        assert list(row.after.latency) == [1, 4]
        assert row.speed_up(4) == (
            row.before.latency[4].median_ms / row.after.latency[4].median_ms
        )


def test_totals(found):
    totals = found.totals
    assert totals.num_layers == Pair(5, 5)
    before = 100 * 36 + 400 * 8 + 16
    after = 100 * 18 + 200 * 6 + 12
    assert totals.multiply_adds == Pair(before, after)
    assert totals.multiply_adds.ratio == before / after
    assert totals.parameters.before == _net(4, 8).count_params()
    assert totals.parameters.after == _net(2, 6).count_params()
    assert totals.weight_bytes.after == 4 * totals.parameters.after
    assert totals.num_layers_in_mean == 3
    for n in (1, 4):
        pair = totals.latency[n]
        assert pair.before.num_runs == 5
        expected = pair.before.median_ms / pair.after.median_ms
        assert totals.speed_up_total_time[n] == expected
        ratios = [
            row.speed_up(n) for row in found.rows if row.has_multiply_adds
        ]
        assert totals.speed_up_mean_of_layers[n] == pytest.approx(
            np.mean(ratios)
        )
        assert totals.sum_of_layers_ms[n].before == pytest.approx(
            sum(row.before.latency[n].median_ms for row in found.rows)
        )
        assert totals.call_ms[n] > 0


def test_models_that_compute_the_same(found):
    assert list(found.totals.largest_difference) == ["logits"]
    assert found.totals.largest_difference["logits"] < 1e-5
    assert found.notes == []


def test_models_that_do_not_compute_the_same():
    model, other = (
        keras.Sequential([keras.Input((4,)), layers.Dense(3, name="logits")])
        for _ in range(2)
    )
    sample = np.random.default_rng(0).standard_normal((3, 4))
    found = compare(model, other, sample=sample, batch_sizes=(3,), seconds=0.0)
    sample = sample.astype(np.float32)
    a, b = (np.array(m(sample, training=False)) for m in (model, other))
    expected = np.abs(a - b).max() / np.abs(a).max()
    assert found.totals.largest_difference["logits"] == pytest.approx(
        expected, rel=1e-4
    )


def test_layers_of_one_side():
    images = keras.Input((12, 12, 1), name="images")
    x = layers.Conv2D(4, 3, name="conv1")(images)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Rescaling(1.0, name="trunk")(x)
    after = keras.Model(images, layers.Dense(2, name="logits")(x))
    found = compare(_net(4, 8), after, batch_sizes=(1,), seconds=0.0)
    sides = {
        row.name: (row.before is not None, row.after is not None)
        for row in found.rows
    }
    assert sides == {
        "conv1": (True, True),
        "norm1": (True, False),
        "flatten": (True, True),
        "trunk": (False, True),
        "hidden": (True, False),
        "logits": (True, True),
    }
    assert found.totals.num_layers == Pair(5, 4)
    assert found.totals.num_layers_in_mean == 2
    assert len(found.notes) == 1 and "folded on one side" in found.notes[0]


def test_bidirectional_that_became_two():
    def inputs():
        return keras.Input((2, 3), name="sequence")

    before_in, after_in = inputs(), inputs()
    both = layers.Bidirectional(
        layers.SimpleRNN(4, return_sequences=True, unroll=True, name="rnn"),
        name="both",
    )
    before = keras.Model(
        before_in, layers.Dense(2, name="out")(both(before_in))
    )
    forward = layers.SimpleRNN(
        4, return_sequences=True, unroll=True, name="both_forward"
    )
    backward = layers.SimpleRNN(
        4,
        return_sequences=True,
        go_backwards=True,
        unroll=True,
        name="both_backward",
    )
    x = layers.Concatenate(name="both")(
        [forward(after_in), keras.ops.flip(backward(after_in), axis=1)]
    )
    after = keras.Model(after_in, layers.Dense(2, name="out")(x))
    forward.set_weights(both.forward_layer.get_weights())
    backward.set_weights(both.backward_layer.get_weights())
    after.get_layer("out").set_weights(before.get_layer("out").get_weights())
    found = compare(before, after, batch_sizes=(2,), seconds=0.0)
    (row,) = (row for row in found.rows if row.name == "both")
    assert row.after.names[:2] == ("both_forward", "both_backward")
    assert row.after.kinds == ("SimpleRNN", "SimpleRNN", "Flip", "Concatenate")
    assert row.after.outputs == row.before.outputs == ((2, 8),)
    assert len(found.rows) == 2
    assert row.after.parameters == row.before.parameters
    assert row.after.multiply_adds == row.before.multiply_adds
    assert row.speed_up(2) > 0
    assert found.totals.largest_difference["out"] < 1e-5
    assert "Bidirectional → SimpleRNN + SimpleRNN + Flip + Concatenate" in str(
        found
    )


def test_several_inputs_and_outputs_and_nested_models():
    def net(units):
        first, second = keras.Input((4,), name="a"), keras.Input((4,), name="b")
        inner_in = keras.Input((4,))
        inner = keras.Model(
            inner_in, layers.Dense(units, name="dense")(inner_in), name="inner"
        )
        x = layers.Concatenate(name="join")([inner(first), inner(second)])
        return keras.Model(
            [first, second],
            {
                "u": layers.Dense(2, name="u")(x),
                "v": layers.Dense(3, name="v")(x),
            },
        )

    found = compare(net(8), net(3), batch_sizes=(2,), seconds=0.0)
    assert set(found.totals.largest_difference) == {"u", "v"}
    (row,) = (row for row in found.rows if row.name == "inner/dense")
    assert row.before.multiply_adds == 2 * 4 * 8
    assert row.after.multiply_adds == 2 * 4 * 3


class _Square(keras.Layer):
    def call(self, x):
        return tf.square(x)


def test_unknown_layers_are_noted():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, _Square(name="square")(inputs))
    found = compare(model, model, batch_sizes=(1,), seconds=0.0)
    assert found.notes == [
        f"not counted in `{side}`: square: the layer _Square has no rule; add "
        "one with @tf_ssl.multiply_add_rule(_Square)"
        for side in ("before", "after")
    ]
    assert math.isnan(found.totals.speed_up_mean_of_layers[1])


class _NotAlone(keras.Layer):
    """Reads what another layer of its model has set."""

    key = None

    def call(self, x):
        if self.key is None:
            raise RuntimeError("no key")
        return x


def test_layers_that_cannot_run_alone_are_noted():
    taker = _NotAlone(name="taker")

    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.taker = taker

        def call(self, x):
            self.taker.key = 1
            outputs = self.taker(x)
            self.taker.key = None
            return outputs

    model = Net(name="net")
    sample = np.zeros((2, 4), np.float32)
    model(sample)
    found = compare(model, model, sample=sample, batch_sizes=(2,), seconds=0.0)
    assert "not timed alone in `after`: taker: RuntimeError" in found.notes
    (row,) = found.rows
    assert row.speed_up(2) is None
    assert "?" in str(found)


def _comparison():
    side = LayerFacts(
        ("conv1",),
        ("Conv2D",),
        ((24, 24, 20),),
        ((5, 5, 1, 20),),
        520,
        2080,
        288_000,
        {1: Latency(0.5, 0.1, 9)},
    )
    small = LayerFacts(
        ("conv1",),
        ("Conv2D",),
        ((24, 24, 5),),
        ((5, 5, 1, 5),),
        130,
        520,
        72_000,
        {1: Latency(0.2, 0.1, 9)},
    )
    totals = Totals(
        Pair(2, 1),
        Pair(520, 130),
        Pair(2080, 520),
        Pair(288_000, 72_000),
        {1: Pair(Latency(1.0, 0.1, 9), Latency(0.8, 0.1, 9))},
        {1: Pair(0.5, 0.2)},
        {1: 0.05},
        {1: 1.25},
        {1: 2.5},
        1,
        {"logits": 3e-7},
    )
    machine = {
        "processor": "a processor",
        "cores": 2,
        "intra_op_threads": 0,
        "inter_op_threads": 0,
        "devices": ["CPU"],
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
    }
    rows = [Row("conv1", side, small), Row("gone", side, None)]
    return Comparison(rows, totals, ["a note"], machine)


def test_table():
    text = str(_comparison())
    lines = text.splitlines()
    headers = (
        "layer class output kernel parameters multiply-adds ms alone, batch 1"
    )
    assert lines[0].split() == headers.split()
    assert lines[2].split("  ")[0] == "conv1"
    for cell in (
        "24×24×20 → 24×24×5",
        "5×5×1×20 → 5×5×1×5",
        "520 → 130",
        "288,000 → 72,000",
        "0.500 → 0.200 (2.50x)",
    ):
        assert cell in lines[2]
    assert "Conv2D → -" in lines[3]
    assert "0.500 → -" in lines[3]
    assert "whole model, batch 1, median ± spread" in text
    assert "1.000 ± 0.100 ms" in text
    assert text.endswith(
        "speed-up by total time, batch 1: 1.25x\n"
        "mean of the ratios of 1 layers alone, batch 1 (the paper's speedup): "
        "2.50x\n"
        "largest difference of logits, max|a-b| / max|a|: 3.0e-07 "
        "(rounding: they compute the same)\n"
        "of each time alone, batch 1: 0.050 ms for the call of a compiled "
        "function; spread: 75th less 25th percentile\n"
        "a processor, 2 core(s), threads: one a core, CPU, TensorFlow 2.21.0, "
        "Keras 3.15.1\n"
        "a note"
    )


def test_json():
    comparison = _comparison()
    comparison.totals.largest_difference["logits"] = math.nan
    found = json.loads(comparison.to_json())
    assert found["rows"][0]["after"]["kernels"] == [[5, 5, 1, 5]]
    assert found["rows"][0]["before"]["latency"]["1"]["median_ms"] == 0.5
    assert found["rows"][1]["after"] is None
    assert found["totals"]["speed_up_total_time"] == {"1": 1.25}
    assert found["totals"]["largest_difference"] == {"logits": "nan"}
    assert found["notes"] == ["a note"]


def test_refuses_other_inputs():
    images = keras.Input((12, 10, 1))
    other = keras.Model(images, layers.Flatten()(images))
    with pytest.raises(ValueError) as error:
        compare(_net(2, 3), other)
    assert str(error.value) == (
        "Invalid value for argument after. Expected a model that takes the "
        "inputs of before, [((None, 12, 12, 1), 'float32')]. Received: a model "
        "that takes [((None, 12, 10, 1), 'float32')]"
    )


def test_refuses_other_outputs():
    images = keras.Input((12, 12, 1))
    other = keras.Model(images, layers.Flatten()(images))
    with pytest.raises(ValueError) as error:
        compare(_net(2, 3), other, batch_sizes=(3,))
    assert str(error.value) == (
        "Invalid value for argument after. Expected a model whose outputs have "
        "the shapes of those of before, [(3, 2)]. Received: a model whose "
        "outputs have the shapes [(3, 144)]"
    )


def test_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="^Invalid type for argument model"):
        compare(_net(2, 3), "model.keras")
    with pytest.raises(ValueError, match="^Invalid value for argument batch"):
        compare(_net(2, 3), _net(2, 3), batch_sizes=())


class _Block(keras.Layer):
    """A residual block, of layers that have the same names in each."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, "relu", name="dense")
        self.second = layers.Dense(4, name="out")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 8))

    def call(self, inputs):
        return keras.ops.add(inputs, self.second(self.first(inputs)))


def _blocks():
    inputs = keras.Input((3, 4))
    x = _Block(name="block")(inputs)
    x = _Block(name="block_1")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_composite_layers_stand_beside_what_was_inside():
    model = _blocks()
    model.get_layer("block").first.kernel.assign(np.eye(4, 8) * 2)
    small = tf_ssl.shrink(model)
    found = compare(model, small, batch_sizes=(1,), seconds=0.0)
    assert [row.name for row in found.rows] == ["block", "block_1", "head"]
    block, other, head = found.rows
    assert block.before.kinds == ("_Block",)
    assert block.before.multiply_adds == 2 * 3 * 4 * 8
    # Units 4 to 7 of the first layer are the constant 0.
    assert block.after.names[:2] == ("block_dense", "block_out")
    assert block.after.multiply_adds == 2 * 3 * 4 * 4
    assert block.after.parameters == 2 * 4 * 4 + 4 + 4
    assert set(block.after.kinds) == {"Dense", "Add"}
    assert other.after.multiply_adds == 2 * 3 * 4 * 8
    assert block.speed_up(1) and other.speed_up(1)
    assert head.after.names == ("head",)
    assert found.totals.multiply_adds == Pair(408, 312)
    assert found.notes == []
    assert "Dense + Dense + Add" in str(found)


class _Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, name="hidden")
        self.block = _Block(name="block")
        self.front = layers.Dense(4, name="front")

    def call(self, inputs):
        return self.hidden(self.block(self.front(inputs["a"])))


def test_subclassed_models_without_a_sample():
    model = _Net(name="net")
    model({"a": np.zeros((2, 4), np.float32)})
    small = tf_ssl.shrink(model)
    found = compare(model, small, batch_sizes=(1,), seconds=0.0)
    assert [row.name for row in found.rows] == ["front", "block", "hidden"]
    assert all(row.has_multiply_adds for row in found.rows)


def test_a_length_that_only_the_second_model_states():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(9, 4, name="e")(ids)
    before = keras.Model(ids, layers.Dense(2, name="d")(x))
    after = tf_ssl.shrink(before, length=5)
    found = compare(before, after, batch_sizes=(1, 2), seconds=0.0)
    assert found.totals.multiply_adds == Pair(40, 40)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.0, "the same to the bit"),
        (3e-7, "rounding: they compute the same"),
        (1e-3, "more than float32 rounds"),
        (0.5, "they compute different things"),
        (float("nan"), "NaN or infinite outputs"),
    ],
)
def test_a_difference_is_put_in_words(difference, words):
    assert words in _meaning(difference)
