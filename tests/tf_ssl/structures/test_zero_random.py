"""Structures zeroed at random."""

import keras
import numpy as np
import pytest

from tf_ssl import zero_random
from tf_ssl.structures.structure import Slice, Structure


def _structure():
    kernel = keras.Variable(np.ones((3, 8)), name="kernel")
    reader = keras.Variable(np.ones((8, 2)), name="reader")
    units = np.arange(8)
    slices = (
        Slice(kernel, "out", units[None]),
        Slice(reader, "in", units[:, None]),
    )
    return Structure("dense/units", 8, slices)


@pytest.mark.parametrize("fraction, count", [(0.0, 0), (0.3, 2), (0.99, 7)])
def test_zero_random(fraction, count):
    structure = _structure()
    zeroed = zero_random([structure], fraction, seed=3)
    (units,) = zeroed.values()
    assert list(zeroed) == ["dense/units"]
    assert len(set(units.tolist())) == count
    dead = structure.norms(("out", "norm", "in")) == 0
    np.testing.assert_array_equal(np.nonzero(dead)[0], units)


def test_zero_random_by_seed():
    def units(seed, fraction=0.5):
        (found,) = zero_random([_structure()], fraction, seed).values()
        return found.tolist()

    assert units(1) == units(1)
    assert len({tuple(units(seed)) for seed in range(8)}) > 1
    assert units(1, 1.0) == list(range(8))


def test_zero_random_leaves_inputs_alone():
    structure = _structure()
    structure.kind = "input"
    assert zero_random([structure], 0.5) == {}
    assert not (structure.norms() == 0).any()


def test_zero_random_fraction():
    with pytest.raises(ValueError) as error:
        zero_random([], 1.5)
    assert str(error.value) == (
        "Invalid value for argument fraction. Expected a number in [0, 1]. "
        "Received: fraction=1.5"
    )
