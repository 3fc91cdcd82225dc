"""Layers taken apart: what they do is seen, and nothing of them changes."""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from tf_ssl.graph import opening
from tf_ssl.graph.opening.batch import batches_for
from tf_ssl.graph.opening.composites import open_model
from tf_ssl.graph.walk import build_graph


class Block(layers.Layer):
    """Variables, arrays, an inner layer, and the size of the batch."""

    def __init__(self, fails=False, **kwargs):
        super().__init__(**kwargs)
        self.fails = fails
        self.dense = layers.Dense(4, name="dense")
        self.drop = layers.Dropout(0.5, name="drop")

    def build(self, shape):
        self.dense.build(shape)
        self.token = self.add_weight((1, 1, 4), name="token")
        self.list = [self.add_weight((4,), name="scale"), np.ones(4, "float32")]

    def call(self, x):
        x = self.drop(self.dense(x)) * self.list[0] + self.list[1]
        x = ops.concatenate(
            [ops.tile(self.token, (ops.shape(x)[0], 1, 1)), x], axis=1
        )
        if self.fails:
            raise KeyError("as wanted")
        return ops.convert_to_tensor(x)


def is_known(layer):
    return not isinstance(layer, Block)


def model_of(block):
    inputs = keras.Input((5, 4))
    outputs = block(layers.Dense(4, name="first")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="last")(outputs + 1.0))


PATCHED = [
    *((ops, name) for name in ("convert_to_tensor", "tile", "repeat")),
    *((ops, "broadcast_to"), (keras.KerasTensor, "__getitem__")),
    *((keras.Layer, "__call__"), (keras.Layer, "add_loss")),
]


def state(model):
    """All that opening must leave as it is."""
    found = {}
    for op in model.operations:
        inner = op._flatten_layers() if isinstance(op, keras.Layer) else [op]
        for part in inner:
            found[id(part)] = (
                len(part._inbound_nodes),
                len(part._outbound_nodes),
                {k: id(v) for k, v in vars(part).items()},
            )
    return (
        found,
        [getattr(owner, name) for owner, name in PATCHED],
        [v.numpy().tolist() for v in model.variables],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_changes(fails):
    block = Block(name="block")
    model = model_of(block)
    block.fails = fails
    before = state(model)
    graph = build_graph(model, is_known)
    assert state(model) == before
    assert [name for name, _ in graph.closed] == ["block"] * fails
    lines = []
    model.summary(print_fn=lambda line, *args, **kwargs: lines.append(line))
    assert lines and model.layers[1].output is not None


def test_what_fails_is_named_with_its_line():
    block = Block(name="block")
    model = model_of(block)
    block.fails = True
    ((_, reason),) = build_graph(model, is_known).closed
    assert reason.startswith("KeyError: 'as wanted', at test_opening.py:")
    assert reason.endswith(': raise KeyError("as wanted")')


def test_threads_wait_for_each_other():
    model = model_of(Block(name="block"))
    expected = [
        type(c.op).__name__ for c in build_graph(model, is_known).calls()
    ]
    found, before = [], state(model)

    def work():
        for _ in range(3):
            calls = build_graph(model, is_known).calls()
            found.append([type(c.op).__name__ for c in calls])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 12
    assert state(model) == before


def test_other_threads_see_keras_as_it_is():
    seen = []

    class Asks(Block):
        def call(self, x):
            def other():
                seen.append(ops.tile(ops.ones((1, 2)), (3, 1)).shape)
                seen.append(layers.Dense(2)(np.ones((1, 2))).shape)

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return super().call(x)

    build_graph(model_of(Asks()), is_known)
    assert {tuple(shape) for shape in seen} == {(3, 2), (1, 2)}


def test_batches_are_no_sizes_of_the_layer():
    class Big(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((2018, 3), name="w")  # 2 * 1009
            self.window = 1013

    layer = Big()
    layer.build(None)
    sizes = [b.size for b in batches_for(layer, ())]
    assert len(set(sizes)) == 3
    assert {1009, 1013}.isdisjoint(sizes)
    many = Big()
    many.build(None)
    many.all = [1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061]
    with pytest.raises(opening.CannotOpen, match="its sizes are multiples of"):
        batches_for(many, ())


def open_call(function, shape=(None, 4)):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4, name="dense")
            self.table = self.add_weight((9, 4), name="table")

        def call(self, x):
            return function(self, self.dense(x))

    model = Net()
    model(np.ones((2, *(n or 3 for n in shape))))
    model._build_shapes_dict = {"input_shape": (None, *shape)}
    return lambda length=None: open_model(model, lambda layer: True, length)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x + m.table[: ops.shape(x)[1]],
        lambda m, x: x + ops.sum(m.table[: x.shape[1]], axis=0),
        lambda m, x: x * (2.0 if x.shape[1] is None else 3.0),
    ],
    ids=["shape()", "shape", "other code"],
)
def test_open_sizes_that_would_give_another_graph_are_refused(function):
    opened = open_call(function)
    with pytest.raises(opening.CannotOpen) as error:
        opened()
    assert "sizes of its input are not known: length=…" in str(error.value)
    assert opened(3).outputs[0].shape[1:] == (3, 4)


def test_open_sizes_that_are_not_read_stay_open():
    opened = open_call(lambda m, x: ops.relu(x) + m.table[0])()
    assert opened.outputs[0].shape == (None, None, 4)
    assert [type(node.operation).__name__ for node in opened.nodes] == [
        *("Dense", "Relu", "Source", "GetItem", "Add"),
    ]


@pytest.mark.parametrize(
    "key, shape",
    [
        (slice(None, 3), (3, 4)),
        (..., (9, 4)),
        (None, (1, 9, 4)),
        (2, (4,)),
        ((0, slice(1, 3)), (2,)),
    ],
)
def test_keys_that_keras_takes_of_numbers_only(key, shape):
    opened = open_call(lambda m, x: (x, m.table[key]))()
    assert opened.outputs[1].shape == shape


def test_reshape_with_the_batch():
    opened = open_call(
        lambda m, x: ops.reshape(x, (ops.shape(x)[0] * 5, 2, -1)), (5, 4)
    )()
    op = opened.nodes[-1].operation
    assert op.newshape == (-1, 2, 2)
    assert opened.batch.without(opened.outputs[0].shape) == (None, 2, 2)
