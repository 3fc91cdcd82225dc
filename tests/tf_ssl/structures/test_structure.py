"""Slices of variables, and the norms of units."""

import json

import keras
import numpy as np
import pytest

import models
import tf_ssl
from tf_ssl import Slice, Structure, Structures


def variable(shape, name="v", seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return keras.Variable(values.astype(np.float32), name=name)


def recurrent(units):
    """The recurrent kernel of an LSTM: columns of four gates, and rows."""
    kernel = variable([units, 4 * units], "recurrent")
    columns = np.tile(np.arange(units), 4)[None]
    rows = np.arange(units)[:, None]
    return kernel, Structure(
        "lstm/units",
        units,
        (Slice(kernel, "out", columns), Slice(kernel, "in", rows)),
        roles=("out", "in"),
    )


def test_index_of_a_filter():
    kernel = variable([3, 3, 2, 5])
    part = Slice(kernel, "out", np.arange(5).reshape(1, 1, 1, 5))
    value = kernel.numpy()
    np.testing.assert_array_equal(value[part.index([1, 3])], value[..., [1, 3]])
    part.zero(3)
    value[..., 3] = 0
    np.testing.assert_array_equal(kernel.numpy(), value)


def test_index_over_two_axes():
    # Two groups of two channels and three filters each.
    kernel = variable([2, 6])
    units = np.repeat([[0, 2], [1, 3]], 3, axis=1)
    part = Slice(kernel, "in", units)
    value = kernel.numpy()
    np.testing.assert_array_equal(value[part.index(2)], value[0, 3:])
    assert value[part.index([])].size == 0


def test_index_of_a_whole_variable():
    kernel = variable([2, 6])
    part = Slice(kernel, "out", np.zeros([1, 1], int))
    assert part.index(0) == (slice(None), slice(None))
    assert kernel.numpy()[part.index(1)].size == 0


def test_norms_count_a_weight_once():
    units = 3
    kernel, structure = recurrent(units)
    value = kernel.numpy().astype(np.float64)
    once, twice = np.zeros(units), np.zeros(units)
    for k in range(units):
        mine = np.zeros(value.shape, bool)
        mine[:, k::units] = True
        twice[k] += np.sum(value[mine] ** 2)
        row = np.zeros(value.shape, bool)
        row[k] = True
        twice[k] += np.sum(value[row] ** 2)
        once[k] = np.sum(value[mine | row] ** 2)
    np.testing.assert_allclose(structure.norms(), np.sqrt(once))
    np.testing.assert_allclose(
        structure.norms(double_count=True), np.sqrt(twice)
    )
    assert not np.allclose(once, twice)


def test_norms_count_what_three_slices_name_once():
    kernel = variable([3, 3])
    slices = (
        Slice(kernel, "out", np.arange(3)[None]),
        Slice(kernel, "out", np.arange(3)[:, None]),
        Slice(kernel, "out", np.arange(3)[None]),
    )
    value = kernel.numpy().astype(np.float64) ** 2
    expected = value.sum(axis=0) + value.sum(axis=1) - np.diag(value)
    norms = Structure("s", 3, slices).norms()
    np.testing.assert_allclose(norms, np.sqrt(expected))


def test_zero_leaves_statistics_alone():
    gamma, variance = variable([4], "gamma"), variable([4], "variance")
    units = np.arange(4)
    structure = Structure(
        "bn", 4, (Slice(gamma, "norm", units), Slice(variance, "stat", units))
    )
    before = variance.numpy()
    structure.zero([0, 2])
    assert (gamma.numpy()[[0, 2]] == 0).all()
    assert (gamma.numpy()[[1, 3]] != 0).all()
    np.testing.assert_array_equal(variance.numpy(), before)
    np.testing.assert_array_equal(structure.norms(["stat"]) > 0, [True] * 4)


def test_config_binds_by_path():
    kernel, structure = recurrent(3)
    other = variable([3], "other")
    config = structure.get_config()
    bound = Structure.from_config(config, [other, kernel])
    assert bound.get_config() == config
    np.testing.assert_array_equal(bound.norms(), structure.norms())
    with pytest.raises(ValueError) as error:
        Structure.from_config(config, [other])
    assert str(error.value) == (
        "Structure lstm/units has weights in the variable recurrent. Expected "
        "one variable of that path. Received: 0"
    )


def test_a_config_that_lists_all_units_is_read():
    """What get_config returned before units were compact."""
    kernel, structure = recurrent(3)
    config = structure.get_config()
    for part, entry in zip(structure.slices, config["slices"], strict=True):
        entry["units"] = part.units.tolist()
    bound = Structure.from_config(config, [kernel])
    assert bound.get_config() == structure.get_config()


def _by_layers(*layers):
    return tf_ssl.find_structures(keras.Sequential(layers))


L = keras.layers
MODELS = {
    "gates": lambda: _by_layers(
        keras.Input((5, 3)), L.LSTM(64, return_sequences=True), L.GRU(64),
        L.Dense(2),
    ),
    "grouped": lambda: _by_layers(
        keras.Input((8, 8, 16)), L.Conv2D(32, 1, name="a"),
        L.Conv2D(64, 3, groups=8, name="b"), L.Conv2D(4, 1),
    ),
    "flat": lambda: _by_layers(
        keras.Input((14, 14, 3)), L.Conv2D(50, 3), L.Flatten(), L.Dense(9),
        L.Dense(1),
    ),
    "embedding": lambda: _by_layers(
        keras.Input((7,), dtype="int32"), L.Embedding(1000, 128),
        L.GlobalAveragePooling1D(), L.Dense(2),
    ),
    "tied": lambda: tf_ssl.find_structures(
        models.build("rhn", vocab_size=70, width=32, depth=2, seed=0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_configs_are_small_and_lose_nothing(name):
    for structure in MODELS[name]():
        config = json.dumps(structure.get_config())
        assert len(config) < 130 + 250 * len(structure.slices)
        variables = {id(s.variable): s.variable for s in structure.slices}
        bound = Structure.from_config(
            json.loads(config), list(variables.values())
        )
        for part, other in zip(structure.slices, bound.slices, strict=True):
            assert part.variable is other.variable
            assert part.role == other.role
            np.testing.assert_array_equal(part.units, other.units)


def test_config_of_a_large_layer():
    layers = [L.Dense(4096, name=name) for name in "ab"]
    structures = _by_layers(keras.Input((8,)), *layers, L.Dense(1))
    config = json.dumps(structures["b/units"].get_config())
    assert len(config) < 2000


def test_biases_have_one_axis_or_two():
    gru = MODELS["gates"]()[2]
    (bias,) = [s for s in gru.slices if s.variable.path.endswith("bias")]
    assert bias.units.shape == (1, 192) and bias.is_bias
    assert not any(s.is_bias for s in gru.slices if s is not bias)
    assert bias not in gru.counted()
    assert [s.layer for s in gru.of(("out",))] == [gru.name.split("/")[0]] * 3


def _four():
    inputs = keras.Input((6, 6, 1), name="images")
    x = L.Conv2D(20, 5, name="conv1")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Flatten()(x)
    x = L.Add(name="sum")([L.Dense(9, name=n)(x) for n in "abcd"])
    return tf_ssl.find_structures(keras.Model(inputs, L.Dense(1, name="y")(x)))


def test_printed_a_structure_is_one_line():
    structures = _four()
    made = "20 units of 172 weights  made by conv1"
    of_sum = "9 units of 325 weights   made by a, b and 2 more"
    assert repr(structures).split("\n") == [
        "images/input   input    1 units of 500 weights   read by conv1",
        f"conv1/filters  filters  {made}            read by a, b and 2 more",
        f"a/units        units    {of_sum}  read by y",
        "1 left whole: see .skipped",
    ]
    assert str(structures) == repr(structures)
    assert repr(structures[1]) == (
        "<Structure conv1/filters, filters, 20 units of 172 weights, made by "
        "conv1, read by a, b and 2 more>"
    )
    assert repr(structures[1].slices[0]) == (
        "<Slice conv1/kernel, out, units [1, 1, 1, 20]>"
    )
    assert repr(tf_ssl.Structures()) == "no structures"


def test_dead_of_all_structures():
    structures = _four()
    structures["conv1/filters"].zero([3, 4])
    dead = structures.dead()
    assert list(dead) == [s.name for s in structures]
    np.testing.assert_array_equal(np.flatnonzero(dead["conv1/filters"]), [3, 4])
    thresholds = []

    def at_once(threshold):
        thresholds.append(threshold)
        return {s.name: np.ones(s.size, bool) for s in reversed(structures)}

    structures.dead_of_all = at_once
    assert all(units.all() for units in structures.dead(0.5).values())
    assert thresholds == [0.5]
    # A part of them asks only once, too, and keeps what was skipped.
    part = structures[1:]
    assert isinstance(part, tf_ssl.Structures)
    assert part.skipped == structures.skipped
    assert list(part.dead()) == [s.name for s in structures][1:]
    assert thresholds == [0.5, 0.0]


def test_structures_by_name():
    _, structure = recurrent(3)
    structures = tf_ssl.Structures([structure])
    assert structures["lstm/units"] is structure
    assert structures[0] is structure
    with pytest.raises(KeyError, match="No structure 'gru'. Names: lstm/units"):
        structures["gru"]


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda v: Slice(v, "bias", np.zeros([1, 3], int)),
            "Invalid value for argument role. Expected one of",
        ),
        (
            lambda v: Slice(v, "out", np.zeros([1, 2], int)),
            "Invalid value for argument units. Expected an array that "
            "broadcasts to the shape (2, 3) of v. Received: shape (1, 2)",
        ),
    ],
)
def test_bad_slices(make, message):
    with pytest.raises(ValueError) as error:
        make(variable([2, 3]))
    assert message in str(error.value)


def test_biases_do_not_count_where_readers_do():
    """A forget gate's bias begins at 1 and would keep every unit's norm up."""
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            keras.layers.LSTM(4, name="lstm", unit_forget_bias=True),
            keras.layers.Dense(1),
        ]
    )
    lstm = next(
        s for s in tf_ssl.find_structures(model) if s.name == "lstm/units"
    )
    before = lstm.norms()
    bias = model.get_layer("lstm").cell.bias
    assert bias.path not in [part.variable.path for part in lstm.counted()]
    bias.assign(np.full(16, 5.0))
    np.testing.assert_array_equal(lstm.norms(), before)
    # Of what makes it alone they do.
    assert (lstm.norms(("out",)) > 10).all()
    assert lstm.counted(("out",)) == lstm.of(("out",))


def test_a_tied_embedding_counts_once():
    model = models.build("rhn", vocab_size=7, width=3, depth=2, seed=0)
    (units,) = tf_ssl.find_structures(model)
    cell = model.get_layer("rhn").cell
    kernels = [cell.kernel, *cell.recurrent_kernels]
    embeddings = model.get_layer("embedding").embeddings.numpy()
    total = np.square(embeddings).sum(0)
    for kernel in kernels:
        square = np.square(kernel.numpy()).reshape(3, 2, 3)
        total += square.sum((1, 2)) + square.sum((0, 1))  # rows, columns
    np.testing.assert_allclose(
        units.norms(double_count=True), np.sqrt(total), rtol=1e-6
    )


def test_a_name_that_is_none_says_why():
    found = Structures([], [("a", "it is an output of the model")])
    with pytest.raises(KeyError) as error:
        found["a/units"]
    assert error.value.args[0] == (
        "No structure 'a/units'. a was left whole: it is an output of the "
        "model. Names: none"
    )
