import keras
import numpy as np

from tf_ssl.measure.matching import folded_on_one_side, match
from tf_ssl.measure.model_layers import model_layers

layers = keras.layers


def _layers(*stack, shape=(6, 4)):
    model = keras.Sequential([keras.Input(shape), *stack])
    return model_layers(model, np.zeros((2, *shape), np.float32), 2)


def _dense(*names):
    return _layers(*(layers.Dense(4, name=name) for name in names))


def test_by_name():
    pairs = match(_dense("a", "b", "c"), _dense("a", "x", "c", "y"))
    assert pairs == [
        (("a",), ("a",)),
        ((), ("x",)),
        (("b",), ()),
        (("c",), ("c",)),
        ((), ("y",)),
    ]


def test_new_layers_keep_their_order():
    pairs = match(_dense("a"), _dense("x", "y", "a", "z", "w"))
    assert [(*b, *a)[0] for b, a in pairs] == ["x", "y", "a", "z", "w"]


def _two_rnns(first, second, join="join"):
    sequence = keras.Input((6, 4))
    forward = layers.SimpleRNN(3, return_sequences=True, name=first)(sequence)
    backward = layers.SimpleRNN(
        2, return_sequences=True, go_backwards=True, name=second
    )(sequence)
    model = keras.Model(
        sequence,
        layers.Concatenate(name=join)(
            [forward, keras.ops.flip(backward, axis=1)]
        ),
    )
    return model_layers(model, np.zeros((2, 6, 4), np.float32), 2)


def test_bidirectional_that_became_two():
    before = _layers(
        layers.Bidirectional(layers.SimpleRNN(3, name="l"), name="b")
    )
    for names in (("b_forward", "b_backward"), ("forward_l", "backward_l")):
        pairs = match(before, _two_rnns(*names))
        (_, partners), last = pairs
        assert partners[:2] == names
        assert len(partners) == 3 and partners[2].startswith("flip")
        assert last == ((), ("join",))


def test_bidirectional_whose_name_went_to_the_layer_that_joins():
    before = _layers(
        layers.Bidirectional(layers.SimpleRNN(3, name="l"), name="b")
    )
    names = ("forward_l", "backward_l")
    ((_, partners),) = match(before, _two_rnns(*names, join="b"))
    assert partners[:2] == names
    assert partners[3] == "b"


def test_bidirectional_that_stays():
    before = _layers(
        layers.Bidirectional(layers.SimpleRNN(3, name="l"), name="b")
    )
    assert match(before, before) == [(("b",), ("b",))]


def test_other_recurrent_layers_are_no_halves():
    before = _layers(
        layers.Bidirectional(layers.SimpleRNN(3, name="l"), name="b")
    )
    assert match(before, _two_rnns("x", "y"))[-1] == (("b",), ())


def _conv_norm(*, norm, name="norm", conv="conv"):
    stack = [layers.Conv1D(4, 3, name=conv)]
    stack += [layers.BatchNormalization(name=name)] if norm else []
    return _layers(*stack, layers.ReLU(name="relu"))


def test_folding_on_one_side():
    with_norm, without = _conv_norm(norm=True), _conv_norm(norm=False)
    expected = (
        "norm (BatchNormalization) is in `{}` only, conv, which it reads, in "
        "both: folded on one side. Fold it on both sides or on neither to "
        "compare times."
    )
    assert folded_on_one_side(with_norm, without) == [expected.format("before")]
    assert folded_on_one_side(without, with_norm) == [expected.format("after")]


def test_folding_on_both_sides_or_with_its_layer():
    with_norm, without = _conv_norm(norm=True), _conv_norm(norm=False)
    renamed = _conv_norm(norm=True, name="other")
    gone = _conv_norm(norm=False, conv="conv2")
    assert folded_on_one_side(with_norm, with_norm) == []
    assert folded_on_one_side(without, without) == []
    assert folded_on_one_side(with_norm, renamed) == []
    assert folded_on_one_side(with_norm, gone) == []


class _Block(keras.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)


def _opened(*blocks):
    sequence = x = keras.Input((6, 4))
    for name in blocks:
        y = keras.ops.expand_dims(x, 1)
        y = layers.Dense(4, name=f"{name}_dense")(y)
        x = x + y[:, 0]
    model = keras.Model(sequence, layers.Dense(4, name="last")(x))
    return model_layers(model, np.zeros((2, 6, 4), np.float32), 2)


def test_a_composite_layer_with_what_was_inside():
    before = _layers(
        _Block(name="block"),
        _Block(name="block_1"),
        layers.Dense(4, name="last"),
    )
    after = _opened("block", "block_1")
    pairs = match(before, after)
    assert [names for names, _ in pairs] == [
        ("block",),
        ("block_1",),
        ("last",),
    ]
    kinds = [
        [type(after[name].layer).__name__ for name in others]
        for _, others in pairs
    ]
    assert kinds[0][:4] == ["ExpandDims", "Dense", "GetItem", "Add"]
    assert kinds[1][-3:] == ["Dense", "GetItem", "Add"]
    assert kinds[2] == ["Dense"]
    assert "block_1_dense" in pairs[1][1]


def test_layers_of_a_subclassed_model_inside():
    before = _dense("a", "b")
    before["net/b"] = before.pop("b")
    assert match(before, _dense("a", "b")) == [
        (("a",), ("a",)),
        (("net/b",), ("b",)),
    ]
