"""Arrays of units, and back."""

import json

import numpy as np
import pytest

from tf_ssl.structures.compact_units import decode, encode

RNG = np.random.default_rng(0)
ARRAYS = {
    "filters": (np.arange(4096).reshape(1, 1, 1, -1), "blocks"),
    "gates": (np.tile(np.arange(1500), 4)[None], "blocks"),
    "channels first": (np.repeat(np.arange(50), 16)[:, None], "blocks"),
    "grouped": (
        np.arange(8)[:, None] + np.repeat(8 * np.arange(32), 16)[None],
        "blocks",
    ),
    "part": (np.concatenate([np.full(5, -1), np.arange(7)]), "blocks"),
    "one unit": (np.zeros((1, 1), int), "blocks"),
    "none": (np.zeros(0, int), "blocks"),
    "no order": (RNG.permutation(1000), "zlib"),
    "many pieces": (RNG.integers(-1, 3, (300, 300)), "zlib"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_nothing_is_lost(name):
    units, form = ARRAYS[name]
    config = json.loads(json.dumps(encode(units)))
    assert form in config
    found = decode(config)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, units, strict=False)
    assert found.shape == units.shape
    if form == "blocks":
        assert len(json.dumps(config)) < 80


def test_of_any_short_array_nothing_is_lost():
    for _ in range(500):
        units = RNG.integers(-1, RNG.integers(1, 4), RNG.integers(0, 20))
        np.testing.assert_array_equal(decode(encode(units)), units)


def test_lists_are_read():
    np.testing.assert_array_equal(decode([[0, 1, -1]]), [[0, 1, -1]])
