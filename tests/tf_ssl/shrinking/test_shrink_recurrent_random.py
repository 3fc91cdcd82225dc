"""Shrunk against zeroed on random stacks of recurrent layers."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_ssl
from models.layers import RHN, AttentionFlow, AttentionPooling, TiedSoftmax
from tests.tf_ssl.shrinking.test_shrink import MODES, fill

_WORDS = 11


def random_stack(random):
    """Recurrent layers on embedded words; dense, attention or tied behind."""
    size = int(random.integers(3, 7))
    mask = bool(random.integers(2))
    words = keras.Input([None], dtype="int32")
    consumer = random.choice(["dense", "attention", "pooling", "tied"])
    table = TiedSoftmax(_WORDS, size, mask_zero=mask, name="table")

    def recurrent(units, name, **arguments):
        kind = random.choice(["lstm", "gru", "gru before", "simple", "rhn"])
        if kind == "rhn":
            return RHN(units, 2, name=name, **arguments)
        if kind == "gru before":
            return layers.GRU(units, reset_after=False, name=name, **arguments)
        make = {
            "lstm": layers.LSTM,
            "gru": layers.GRU,
            "simple": layers.SimpleRNN,
        }[kind]
        bias = bool(random.integers(4))
        return make(units, use_bias=bias, name=name, **arguments)

    def layer(x, units, name):
        arguments = {"return_sequences": True}
        kind = random.choice(["plain", "backwards", "both", "state"])
        if kind == "backwards":
            x = recurrent(units, name, go_backwards=True, **arguments)(x)
            return keras.ops.flip(x, axis=1)
        if kind == "both":
            one = random.choice([layers.LSTM, layers.GRU])
            return layers.Bidirectional(
                one(units, **arguments),
                merge_mode=random.choice(["concat", "sum", "mul", "ave"]),
                name=name,
            )(x)
        if kind == "state":
            first = layers.LSTM(units, return_state=True, name=f"{name}_first")
            _, h, c = first(x)
            return layers.LSTM(units, name=name, **arguments)(
                x, initial_state=[h, c]
            )
        return recurrent(units, name, **arguments)(x)

    x = table(words)
    for i in range(int(random.integers(1, 4))):
        x = layer(x, int(random.integers(3, 7)), f"layer{i}")
        if random.integers(2):
            x = layers.Dropout(0.5, name=f"dropout{i}")(x)
    if consumer == "tied":
        x = layers.LSTM(size, return_sequences=True, name="last")(x)
        return keras.Model(words, table(x, reverse=True))
    if consumer == "attention":
        other = layers.LSTM(x.shape[-1], return_sequences=True, name="other")
        x = AttentionFlow(name="flow")(other(x), x)
    if consumer == "pooling":
        logits = layers.Dense(1, name="scores")(x)
        logits = keras.ops.squeeze(logits, -1)
        pooled = AttentionPooling(name="pooling")(x, logits)
        x = layers.Concatenate(name="join")([x, pooled, x * pooled])
    x = layers.TimeDistributed(layers.Dense(4, "relu"), name="each")(x)
    return keras.Model(words, layers.Dense(2, name="logits")(x))


@pytest.mark.parametrize("seed", range(20))
def test_random_stack(seed):
    random = np.random.default_rng(seed)
    model = fill(random_stack(random), seed)
    structures = tf_ssl.find_structures(model)
    planted = {}
    for structure in structures:
        units = np.flatnonzero(random.random(structure.size) < 0.4)
        mode = random.choice(list(MODES))
        MODES[mode](structure, units)
        if mode == "all":
            planted[structure.name] = min(len(units), structure.size - 1)
    words = random.integers(1, _WORDS, (3, 6))
    words[0, 4:] = 0
    small = tf_ssl.shrink(model, sample=words)  # raises beyond 1e-5
    assert small.shrink_report.difference <= 1e-5
    units = small.shrink_report.units
    for name, count in planted.items():
        assert units[name][0] - units[name][1] >= count
    # What went was all that was dead.
    kept = {name: count for name, count, _ in small.shrink_report.kept}
    for structure in structures:
        before, after = units[structure.name]
        dead = int(structure.dead().sum()) - kept.get(structure.name, 0)
        assert before - after >= dead
