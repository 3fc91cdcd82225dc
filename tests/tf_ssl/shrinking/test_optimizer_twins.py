"""Tests of an optimizer's settings, tf_ssl/shrinking/optimizer_twins.py."""

import re

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.shrinking.test_optimizer_state import (
    L,
    Masked,
    O,
    cut,
    fit,
    net,
    trained,
    zero_dead,
)
from tf_ssl.shrinking.optimizer_state import optimizer_for


def test_a_learning_rate_set_by_hand():
    big, small, pairs = trained(O.Adam(0.01))
    big.optimizer.learning_rate = 0.123
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    assert float(optimizer.learning_rate) == pytest.approx(0.123)
    optimizer.learning_rate = 1.0
    assert float(big.optimizer.learning_rate) == pytest.approx(0.123)


def test_a_schedule_without_a_config():
    class Slow(O.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

    big, small, pairs = trained(O.SGD(Slow()))
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    assert optimizer._learning_rate is big.optimizer._learning_rate


def test_not_built():
    optimizer = O.Adam(0.02)
    again = optimizer_for(optimizer, net(4), [], cut)
    assert not again.built and float(again.learning_rate) == np.float32(0.02)


def test_variables_without_weight_decay():
    big, optimizer = net(), O.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay([big.get_layer("first").kernel])
    optimizer.build(big.trainable_variables)
    small = net(4)
    pairs = list(zip(big.variables, small.variables, strict=True))
    again = optimizer_for(optimizer, small, pairs, cut)
    decays = [again._use_weight_decay(v) for v in small.trainable_variables]
    assert decays == [False, True, True, True]


def test_group_lasso_takes_the_structures_of_the_smaller_model():
    keras.utils.set_random_seed(0)
    big = net()
    structures = tf_ssl.find_structures(big)
    optimizer = tf_ssl.GroupLassoOptimizer(
        O.SGD(0.05, momentum=0.9),
        structures,
        {"first/*": 0.1},
        update="proximal",
    )
    zero_dead(big)
    big.compile(optimizer, "mse", jit_compile=False)
    fit(big, 2, [Masked()])
    optimizer.strength = {"first/*": 0.02}
    small = net(4)
    pairs = list(zip(big.variables, small.variables, strict=True))
    for old, new in pairs:
        new.assign(cut(old, old.numpy()))
    again = optimizer_for(optimizer, small, pairs, cut)
    assert [s.name for s in again.structures] == [s.name for s in structures]
    of_small = {id(v) for v in small.variables}
    for structure in again.structures:
        assert all(id(p.variable) in of_small for p in structure.slices)
    np.testing.assert_array_equal(again.strength, optimizer.strength)
    assert np.max(again.strength) == pytest.approx(0.02)
    small.compile(again, "mse", jit_compile=False)
    fit(small, 3)
    fit(big, 3, [Masked()])
    for old, new in pairs:
        np.testing.assert_allclose(
            cut(old, old.numpy()), new, rtol=1e-5, atol=1e-6
        )


def test_group_lasso_with_given_structures_and_patterns_without_any():
    big = net()
    structures = list(tf_ssl.find_structures(big))
    optimizer = tf_ssl.GroupLassoOptimizer(
        O.Adam(0.05), structures, {"first/*": 0.1, "*": 0.3}
    )
    optimizer.build(big.trainable_variables)
    small = net(4)
    pairs = list(zip(big.variables, small.variables, strict=True))
    of_small = [
        s for s in tf_ssl.find_structures(small) if "first" not in s.name
    ]
    again = optimizer_for(optimizer, small, pairs, cut, structures=of_small)
    assert list(again.structures) == of_small
    assert again.initial_strength == {"*": 0.3}
    # "*" leaves inputs out.
    expected = [0.0 if s.kind == "input" else 0.3 for s in of_small]
    np.testing.assert_array_equal(again.strength, expected)


def test_force_forgets_patterns_that_match_nothing():
    big = net()
    optimizer = tf_ssl.AdaptiveForce(
        O.SGD(0.1), 0.1, ["first/kernel", "second/*"]
    )
    optimizer.build(big.trainable_variables)
    x = keras.Input((3,))
    small = keras.Model(x, L.Dense(2, name="second")(x))
    pairs = list(zip(big.variables[2:], small.variables, strict=True))
    again = optimizer_for(optimizer, small, pairs, lambda v, x: x[:3])
    assert again.kernels == ("second/*",) and again.ratio == 0.1


def test_no_config():
    class Own(O.SGD):
        def __init__(self, needed):
            super().__init__(0.1)
            self.needed = needed

    message = (
        "Invalid value for argument optimizer. Expected one that can be made "
        "again from its config. Received: own of class Own: write "
        "Own.get_config, which returns all arguments of __init__. "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        optimizer_for(Own(object()), net(4), [], cut)
