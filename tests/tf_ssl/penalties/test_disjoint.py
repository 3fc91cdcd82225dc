"""Groups that share no weights."""

import keras
import numpy as np
import pytest

import models
import tf_ssl
from tf_ssl.penalties.disjoint import disjoint_slices, share_weights
from tf_ssl.structures.structure import Slice, Structure

L = keras.layers


def _stacked():
    return keras.Sequential(
        [
            keras.Input((5, 3), name="series"),
            L.LSTM(4, return_sequences=True, name="a"),
            L.GRU(6, name="b"),
            L.Dense(2, name="y"),
        ]
    )


def _both_ways():
    inputs = keras.Input((5, 3))
    x = L.Bidirectional(L.LSTM(4, name="a", return_sequences=True))(inputs)
    y = L.Conv1D(3, 2, padding="same", name="b")(inputs)
    x = L.Concatenate()([x, y])
    x = L.Bidirectional(L.GRU(4), "sum")(x)
    return keras.Model(inputs, L.Dense(2)(L.Dense(7, "relu")(x)))


MODELS = {
    "stacked": _stacked,
    "both ways": _both_ways,
    "tied": lambda: models.build("rhn", vocab_size=7, width=3, depth=2, seed=0),
    "bidaf": lambda: models.build("bidaf", seed=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_weight_is_in_one_group_at_most(name):
    structures = tf_ssl.find_structures(MODELS[name]())
    structures = [s for s in structures if s.kind != "input"]
    count = {}
    for structure, (parts, _) in zip(
        structures, disjoint_slices(structures), strict=True
    ):
        assert {"out"} <= {part.role for part in parts}, structure
        for part in parts:
            shape = tuple(part.variable.shape)
            members = np.broadcast_to(part.units >= 0, shape).astype(int)
            before = count.get(part.variable.path, 0)
            count[part.variable.path] = before + members
    assert {int(c.max()) for c in count.values()} == {1}
    # As they count by themselves, they overlap.
    every = [s for structure in structures for s in structure.counted()]
    assert any(
        share_weights(first, second)
        for i, first in enumerate(every)
        for second in every[:i]
    )


def _paths(parts):
    return [(part.variable.path.split("/", 1)[1], part.role) for part in parts]


def test_what_counts_of_stacked_recurrent_layers():
    structures = tf_ssl.find_structures(_stacked())[1:]
    (first, biases), (second, others) = disjoint_slices(structures)
    a, b = "a/lstm_cell", "b/gru_cell"
    assert _paths(first) == [
        (f"{a}/kernel", "out"), (f"{a}/recurrent_kernel", "out"),
    ]  # fmt: skip
    assert _paths(biases) == [(f"{a}/bias", "out")]
    assert _paths(second) == [
        (f"{b}/kernel", "out"), (f"{b}/recurrent_kernel", "out"),
        ("y/kernel", "in"),
    ]  # fmt: skip
    assert _paths(others) == [(f"{b}/bias", "out")]


def test_where_nothing_overlaps_readers_count_and_biases_stay():
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, name="a"), L.Dense(2, name="b")]
    )
    (units,) = tf_ssl.find_structures(model)[1:]
    units.roles = ("out", "in")
    ((parts, biases),) = disjoint_slices([units])
    assert _paths(parts) == [("a/kernel", "out"), ("b/kernel", "in")]
    assert biases == []


def test_biases_go_with_their_unit_and_come_back_with_it():
    model = _stacked()
    optimizer = tf_ssl.GroupLassoOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
        tf_ssl.find_structures(model),
        strength=0.0,
    )
    optimizer.build(model.trainable_variables)
    bias = model.get_layer("a").cell.bias
    gradients = [np.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(gradients)
    assert (bias.numpy()[4:8] > 0.8).all()  # forget gates
    optimizer.strength = 1e3
    optimizer.apply(gradients)
    assert (bias.numpy() == 0).all()
    assert (model.get_layer("y").bias.numpy() != 0).all()
    dead = optimizer.dead_units()
    assert all(units.all() for units in dead.values())
    # Their average is not zero, the unit is.
    optimizer.finalize_variable_values(model.trainable_variables)
    assert (bias.numpy() == 0).all()
    # Momentum is what they did.
    (velocity,) = [
        m
        for m, v in zip(
            optimizer.inner_optimizer.momentums,
            model.trainable_variables,
            strict=True,
        )
        if v is bias
    ]
    np.testing.assert_allclose(velocity.numpy()[4:8], -0.9, rtol=1e-5)
    optimizer.strength = 0.0
    optimizer.apply(gradients)
    assert (bias.numpy() != 0).all()


@pytest.mark.parametrize("roles", [("out", "in"), ("in",), ("out",)])
def test_roles_mean_what_they_say(roles):
    model = _stacked()
    optimizer = tf_ssl.GroupLassoOptimizer(
        keras.optimizers.Adam(), tf_ssl.find_structures(model), 0.1, roles=roles
    )
    if len(roles) == 2:
        with pytest.raises(ValueError, match="groups that share no weights"):
            optimizer.build(model.trainable_variables)
        return
    optimizer.build(model.trainable_variables)
    norms = [
        s.norms(roles).sum() for s in optimizer.structures if s.kind != "input"
    ]
    assert float(optimizer.penalty()) == pytest.approx(0.1 * sum(norms))


def test_an_input_asked_for_beside_what_reads_it_is_an_error():
    model = _stacked()
    optimizer = tf_ssl.GroupLassoOptimizer(
        keras.optimizers.Adam(),
        tf_ssl.find_structures(model),
        {"series/input": 0.1, "*": 0.1},
    )
    with pytest.raises(ValueError) as error:
        optimizer.build(model.trainable_variables)
    assert str(error.value) == (
        "update='proximal' takes groups that share no weights. Units of "
        "structures series/input and a/units share weights of the variable "
        "sequential/a/lstm_cell/kernel. Leave one out (strength={pattern: "
        "...}), or pass other roles, overlap='dykstra' or update='subgradient'."
    ).replace("sequential", model.name)


def test_slices_that_share_weights():
    variable = keras.Variable(np.ones((4, 3)))
    row = Slice(variable, "in", np.array([[0], [-1], [1], [-1]]))
    column = Slice(variable, "out", np.array([[0, -1, -1]]))
    table = np.full((4, 3), -1)
    table[1, 0] = 0
    some = Slice(variable, "out", table)
    assert share_weights(row, column) and share_weights(column, some)
    assert not share_weights(row, some)
    other = Slice(keras.Variable(np.ones((4, 3))), "out", column.units)
    assert not share_weights(row, other)
    structure = Structure("s", 2, (some, row), roles=("out", "in"))
    (((first, second), biases),) = disjoint_slices([structure])
    assert (first, second, biases) == (some, row, [])
