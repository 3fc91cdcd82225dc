"""The README's ten lines, on models of many kinds."""

import keras
import numpy as np
import pytest

import models
import tf_ssl

L = keras.layers
Adam = keras.optimizers.Adam
LossScale = keras.optimizers.LossScaleOptimizer
RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(128, 6, 5)).astype(np.float32)
TARGETS = SERIES[:, -1, :1] + 0.5 * SERIES[:, -2, 1:2]
WORDS = RNG.integers(0, 11, (192, 6))


def _series(*layers):
    return keras.Sequential([keras.Input((6, 5)), *layers])


def _language(*layers):
    words = keras.Input((6,), dtype="int32")
    return keras.Sequential([words, *layers, L.Dense(11, name="softmax")])


def _frozen_base():
    base = keras.Sequential(
        [
            keras.Input((6, 5)),
            L.Conv1D(8, 3, name="a"),
            L.Conv1D(6, 3, name="c"),
        ],
        name="base",
    )
    base.trainable = False
    return _series(base, L.Flatten(), L.Dense(16, "relu", name="b"), L.Dense(1))


MODELS = {
    "dense": lambda: _series(
        L.Flatten(), L.Dense(12, name="a"), L.BatchNormalization(),
        L.ReLU(), L.Dense(1),
    ),
    "frozen base": _frozen_base,
    "lstms": lambda: _series(
        L.LSTM(12, return_sequences=True, name="a"), L.LSTM(10, name="b"),
        L.Dense(1),
    ),
    "gru forecaster": lambda: _series(
        L.GRU(12, name="a"), L.Dense(8, "relu", name="b"), L.Dense(1)
    ),
    "gru, reset before": lambda: _series(
        L.GRU(12, reset_after=False, name="a"), L.Dense(1)
    ),
    "simple rnn": lambda: _series(L.SimpleRNN(12, name="a"), L.Dense(1)),
    "bidirectional": lambda: _series(
        L.Bidirectional(L.LSTM(10, name="a")), L.Dense(6, "relu", name="b"),
        L.Dense(1),
    ),
    "directions added": lambda: _series(
        L.Bidirectional(L.GRU(10, return_sequences=True), "sum"),
        L.LSTM(8, name="b"), L.Dense(1),
    ),
    "words": lambda: _language(
        L.Embedding(11, 8, name="words"),
        L.LSTM(12, return_sequences=True, name="a"),
    ),
    "tied": lambda: models.build(
        "rhn", vocab_size=11, width=12, depth=2, seed=0
    ),
}  # fmt: skip


def _compiled(model, optimizer, **kwargs):
    if model.inputs[0].dtype == "int32":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        data = WORDS, (3 * WORDS + 1) % 11
    else:
        loss, data = "mse", (SERIES, TARGETS)
    model.compile(optimizer, loss, jit_compile=False, **kwargs)
    return data


@pytest.mark.parametrize("name", MODELS)
def test_what_dies_is_removed(name):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    structures = tf_ssl.find_structures(model)
    optimizer = tf_ssl.GroupLassoOptimizer(Adam(0.02), structures, strength=0.0)
    data = _compiled(model, optimizer)
    # As strong as it must be to leave some and take some.
    controller = tf_ssl.callbacks.StrengthController(0.4, epochs=20, gain=3.0)
    optimizer.strength = 0.01
    model.fit(*data, 32, 25, verbose=0, callbacks=[controller])

    dead = structures.dead()
    units = sum(units.size for units in dead.values())
    assert sum(dead[s].sum() for s in optimizer.dead_units()) > 0.2 * units / 2
    # What the penalty has zeroed is what shrink removes, neither more nor less.
    for group in optimizer._step.groups:
        norms = group.norms(optimizer._step._values()).numpy()
        np.testing.assert_array_equal(norms == 0, dead[group.name])
    small = tf_ssl.shrink(model)
    assert small.count_params() < 0.95 * model.count_params()
    assert small.shrink_report.difference < 1e-5
    if name == "frozen base":
        assert [skipped for skipped, _ in optimizer.skipped] == [
            "a/filters", "c/filters",
        ]  # fmt: skip
        assert "is not trained: base/a/kernel" in optimizer.skipped[0][1]
    else:
        assert optimizer.skipped == []


def test_it_ends_with_a_comparison():
    keras.utils.set_random_seed(0)
    model = MODELS["dense"]()
    optimizer = tf_ssl.GroupLassoOptimizer(
        Adam(0.02), tf_ssl.find_structures(model), strength=0.02
    )
    model.fit(*_compiled(model, optimizer), epochs=25, verbose=0)
    small = tf_ssl.shrink(model)
    text = str(tf_ssl.compare(model, small, seconds=0.01))
    assert "parameters" in text
    assert small.get_layer("a").units < 12


@pytest.mark.parametrize("where", ["inside", "around", "by compile"])
def test_mixed_precision(where):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = MODELS["gru forecaster"]()
    finally:
        keras.config.set_dtype_policy("float32")
    structures = tf_ssl.find_structures(model)

    def lasso(optimizer):
        return tf_ssl.GroupLassoOptimizer(optimizer, structures, strength=0.05)

    optimizer = {
        "inside": lambda: lasso(LossScale(Adam(0.02))),
        "around": lambda: LossScale(lasso(Adam(0.02))),
        "by compile": lambda: lasso(Adam(0.02)),
    }[where]()
    data = _compiled(model, optimizer, auto_scale_loss=where == "by compile")
    model.fit(*data, 32, 20, verbose=0)
    dead = {name: int(units.sum()) for name, units in structures.dead().items()}
    assert 0 < dead["a/units"] < 12 and 0 < dead["b/units"] < 8
    assert tf_ssl.shrink(model).get_layer("a").units == 12 - dead["a/units"]


def test_accumulated_gradients():
    """Two micro-steps of half a batch are a step of the batch."""
    weights = []
    for steps, batch in ((1, 64), (2, 32)):
        keras.utils.set_random_seed(0)
        model = MODELS["lstms"]()
        inner = keras.optimizers.SGD(
            0.1,
            momentum=0.5,
            gradient_accumulation_steps=steps if steps > 1 else None,
        )
        optimizer = tf_ssl.GroupLassoOptimizer(
            inner, tf_ssl.find_structures(model), strength=0.5
        )
        data = _compiled(model, optimizer)
        model.fit(*data, batch, 7, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert 0 < np.mean(weights[0][0] == 0) < 1


def test_stateful_layers_lose_what_nothing_reads():
    """Their states may be anything: only readers can be without a unit."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(32, 6, 5)),
            L.LSTM(12, stateful=True, return_sequences=True, name="a"),
            L.LSTM(10, stateful=True, name="b"),
            L.Dense(1),
        ]
    )
    structures = tf_ssl.find_structures(model)
    optimizer = tf_ssl.GroupLassoOptimizer(
        Adam(0.02), structures, strength=0.01, roles=("in",)
    )
    model.fit(*_compiled(model, optimizer), 32, 25, verbose=0)
    dead = structures.dead()
    assert 0 < dead["a/units"].sum() < 12 and 0 < dead["b/units"].sum() < 10
    # shrink compares from the states that are there; the new ones are zero.
    for name in "ab":
        model.get_layer(name).reset_states()
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").units == 12 - dead["a/units"].sum()
