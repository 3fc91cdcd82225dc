"""Units of the recurrent networks: found, removed, the rest computes the same.

Small versions of the networks here; the talk's sizes are marked slow.
"""

import keras
import numpy as np
import pytest

import models
import tf_ssl
from tests.tf_ssl.shrinking.test_shrink import MODES, fill

SMALL = {
    "ptb_lstm": {"vocab_size": 13, "hidden": (9, 8), "embedding": 7},
    "rhn": {"vocab_size": 13, "width": 9, "depth": 3},
    "bidaf": {"vocab_size": 13, "char_vocab_size": 8, "d": 6},
}


def batch(name, words=13, characters=8, context=9, question=4):
    random = np.random.default_rng(0)
    if name != "bidaf":
        return random.integers(0, words, (2, context))
    given = {
        "context": random.integers(1, words, (2, context)),
        "context_chars": random.integers(0, characters, (2, context, 16)),
        "question": random.integers(1, words, (2, question)),
        "question_chars": random.integers(0, characters, (2, question, 16)),
    }
    given["context"][0, 6:] = 0
    given["question"][1, 3:] = 0
    return given


def difference(model, small, given):
    """max|a - b| / max|a|, but of what is no padding."""
    worst = 0.0
    for a, b in zip(
        keras.tree.flatten(model(given)),
        keras.tree.flatten(small(given)),
        strict=True,
    ):
        a, b = a.numpy().astype(np.float64), b.numpy()
        np.testing.assert_array_equal(a < -1e29, b < -1e29)
        there = a > -1e29
        worst = max(worst, np.abs(a - b)[there].max() / np.abs(a[there]).max())
    return worst


def lstm_names():
    return [
        f"{name}_{way}/units"
        for name in ("contextual", "modelling1", "modelling2", "output")
        for way in ("forward", "backward")
    ]


def test_structures():
    def sizes(name):
        found = tf_ssl.find_structures(models.build(name, **SMALL[name]))
        return {s.name: s.size for s in found}

    assert sizes("ptb_lstm") == {
        "embedding/embedding": 7,
        "lstm1/units": 9,
        "lstm2/units": 8,
    }
    assert sizes("rhn") == {"embedding/embedding": 9}
    assert sizes("bidaf") == {
        "characters/embedding": 8,
        "characters_conv/filters": 6,
        "words/embedding": 6,
        **dict.fromkeys(lstm_names(), 6),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_shrunk_against_zeroed(name, mode):
    model = fill(models.build(name, **SMALL[name]))
    planted = {}
    for i, structure in enumerate(tf_ssl.find_structures(model)):
        # Directions lose different numbers.
        units = np.random.default_rng(i).permutation(structure.size)
        units = units[: 2 + i % 3]
        MODES[mode](structure, units)
        planted[structure.name] = len(units)
    given = batch(name)
    small = tf_ssl.shrink(model, sample=given)
    assert difference(model, small, given) <= 1e-5
    if mode != "kernels":  # biases live on
        gone = {n: a - b for n, (a, b) in small.shrink_report.units.items()}
        assert gone == planted


def test_groups_of_the_paper():
    """Weights of a unit: iss-rnns' groups, and what they lack."""
    model = models.build("bidaf")
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    found = tf_ssl.find_structures(model)

    def weights(name):
        unit = found[f"{name}/units"]
        counted = unit.norms()[0] ** 2
        # The recurrent row crosses four of the unit's own columns: there they
        # count twice.
        return round(counted) + 4

    for way in ("forward", "backward"):
        assert weights(f"modelling1_{way}") == 4800
        # With the 800 weights that read the attention's mean of the unit.
        assert weights(f"modelling2_{way}") == 3201 + 800
        assert weights(f"output_{way}") == 6401
        # Their extension: in four places of p, which six layers read, and in
        # the attention.
        assert weights(f"contextual_{way}") == (
            4 * (200 + 100) + 400 + 3 + 4 * (2 * 400 + 2 * 400 + 1 + 1)
        )


def test_rows_that_read_the_attention_keep_a_unit():
    model = fill(models.build("bidaf", **SMALL["bidaf"]))
    structure = tf_ssl.find_structures(model)["modelling2_forward/units"]
    structure.zero([2])
    assert structure.dead().tolist() == [k == 2 for k in range(6)]
    # p 48, modelling2 12, its mean 12, their product 12 features.
    kernel = model.get_layer("output_backward").cell.kernel
    value = kernel.numpy()
    cell = model.get_layer("modelling2_forward").cell
    cell.bias.assign(np.ones(cell.bias.shape))  # the unit is not zero
    value[48 + 12 + 2, 3] = 0.5
    kernel.assign(value)
    assert not structure.dead().any()


def test_directions_of_one_network_and_of_its_successor():
    model = fill(models.build("bidaf", **SMALL["bidaf"]))
    found = tf_ssl.find_structures(model)
    for name, kept in zip(lstm_names(), (6, 5, 4, 3, 2, 1, 3, 2), strict=True):
        found[name].zero(range(kept, 6))
    small = tf_ssl.shrink(model, sample=batch("bidaf"))
    built = models.build(
        "bidaf",
        **SMALL["bidaf"],
        contextual=(6, 5),
        modelling1=(4, 3),
        modelling2=(2, 1),
        output=(3, 2),
    )
    shapes = [
        [tuple(v.shape) for v in m.trainable_variables] for m in (small, built)
    ]
    assert sorted(shapes[0]) == sorted(shapes[1])
    # So weights may be carried on in a network of these sizes.
    for layer in built.layers:
        layer.set_weights(small.get_layer(layer.name).get_weights())
    assert difference(small, built, batch("bidaf")) == 0


def test_states_of_a_stateful_network_stay():
    name = "ptb_lstm"
    options = {**SMALL[name], "stateful": True, "batch_size": 2}
    model = fill(models.build(name, **options))
    for layer in ("lstm1", "lstm2"):
        model.get_layer(layer).reset_state()
    found = tf_ssl.find_structures(model)
    found["lstm1/units"].zero([0, 4, 5])
    found["lstm2/units"].zero([7])
    small = tf_ssl.shrink(model, sample=batch(name))
    assert small.get_layer("lstm1").units == 6
    assert small.get_layer("lstm2").units == 7
    for network in (model, small):
        for layer in ("lstm1", "lstm2"):
            network.get_layer(layer).reset_state()
    for _ in range(3):  # states go from batch to batch
        assert difference(model, small, batch(name)) <= 1e-5


FULL = {
    "ptb_lstm": [{"lstm1/units": 373, "lstm2/units": 315}],
    "rhn": [{"embedding/embedding": 517}],
    "bidaf": [
        dict(zip(lstm_names()[2:], (23, 22, 35, 35, 25, 14), strict=True)),
        # The extension.
        dict(zip(lstm_names(), (61, 58, 23, 22, 35, 35, 25, 14), strict=True)),
    ],
}
PARAMETERS = {"ptb_lstm": [21_824_148], "rhn": [11_070_698]}
PARAMETERS["bidaf"] = [858_932, None]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_sizes_of_the_talk(name):
    given = batch(name, 1000, 100, 30, 7)
    for sizes, parameters in zip(FULL[name], PARAMETERS[name], strict=True):
        model = models.build(name, seed=0)
        found = tf_ssl.find_structures(model)
        for structure, kept in sizes.items():
            size = found[structure].size
            units = np.random.default_rng(0).permutation(size)
            found[structure].zero(units[kept:])
        small = tf_ssl.shrink(model, sample=given)
        units = small.shrink_report.units
        assert {key: units[key][1] for key in sizes} == sizes
        assert difference(model, small, given) <= 1e-5
        if parameters is not None:
            count = sum(np.prod(v.shape) for v in small.trainable_variables)
            assert count == parameters
