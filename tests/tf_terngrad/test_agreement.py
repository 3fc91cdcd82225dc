"""What workers must have in common."""

import keras
import pytest

import tf_terngrad as tg
from tf_terngrad import agreement, collectives


@pytest.mark.parametrize(
    "a, b, expected",
    [
        (1, 2, "1 != 2"),
        (None, 3, "None != 3"),
        ("x", "y", "'x' != 'y'"),
        ([1, 2, 3], [1, 5, 6], "2 != 5"),
        ([1, 2], [1, 2, 3], "2 != 3 of them"),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b=2 != b=3"),
        ({"a": 1}, {"a": 1, "b": 3}, "b=None != b=3"),
        ([1], {"a": 1}, "[1] != {'a': 1}"),
    ],
)
def test_difference(a, b, expected):
    assert agreement._difference(a, b) == expected


def _gathers(monkeypatch, facts):
    monkeypatch.setattr(
        collectives, "allgather_object", lambda mine, name: facts
    )


def test_disagreement_names_every_fact_and_the_first_worker(monkeypatch):
    _gathers(
        monkeypatch,
        [
            {"Keras": "3.15", "steps per epoch": 4, "groups": 1},
            {"Keras": "3.15", "steps per epoch": 4, "groups": 1},
            {"Keras": "3.14", "steps per epoch": 5, "groups": 1},
        ],
    )
    with pytest.raises(RuntimeError) as error:
        tg.check_agreement({})
    assert str(error.value) == (
        "The workers do not agree. Start all with the same program, flags and "
        "versions.\n"
        "  Keras: '3.15' != '3.14' (worker 0, worker 2)\n"
        "  steps per epoch: 4 != 5 (worker 0, worker 2)"
    )


def test_agreement_says_nothing(monkeypatch):
    _gathers(monkeypatch, [{"a": [1, {"b": 2}]}] * 4)
    tg.check_agreement({})


def _facts(units=3, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(units, name="dense")],
        name="tiny",
    )
    inner = options.pop("inner", keras.optimizers.SGD(0.1))
    compression = options.pop("compression", tg.TernGrad())
    steps = options.pop("steps", 4)
    model.compile(tg.DistributedOptimizer(inner, compression, **options), "mse")
    model.optimizer.build(model.trainable_variables)
    return agreement.facts_of(model, steps)


def _differing(**options):
    plain, other = _facts(), _facts(**options)
    assert plain.keys() == other.keys()
    return sorted(k for k in plain if plain[k] != other[k])


def test_facts_of_equal_programs_are_equal():
    # Built twice in one process: no automatic names, ids or seeds in them.
    assert _differing() == []
    assert _differing(compression=tg.TernGrad(seed=9)) == []


@pytest.mark.parametrize(
    "options, fact",
    [
        (dict(units=4), "trainable variables"),
        (dict(groups=2), "groups"),
        (dict(steps=5), "steps per epoch"),
        (dict(compression=tg.TernGrad(2.0)), "compression"),
        (dict(compression=tg.NoCompression()), "compression"),
        (dict(gradient_accumulation_steps=2), "gradient accumulation"),
        (dict(inner=keras.optimizers.Adam(0.1)), "optimizer"),
    ],
)
def test_facts_tell_programs_apart(options, fact):
    assert _differing(**options) == [fact]


def test_facts_of_a_plain_optimizer():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    facts = agreement.facts_of(model, None)
    assert facts["compression"] is None
    assert facts["groups"] is None
