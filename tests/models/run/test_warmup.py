"""Tests of models/run/warmup.py."""

import types

import keras
import numpy as np
import pytest

from models.run.warmup import Warmup, scaled


def options(**values):
    return types.SimpleNamespace(
        **{
            **{"learning_rate": 0.1, "batch_size": 16, "accumulate": 2},
            **{"lr_base_batch": 0, "lr_scaling": "linear"},
            **values,
        }
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 0.1),
        ({"lr_base_batch": 32}, 0.4),  # 16 * 2 * 4 workers = 128
        ({"lr_base_batch": 32, "lr_scaling": "sqrt"}, 0.2),
    ],
)
def test_scaled(values, expected):
    assert scaled(options(**values), 4) == pytest.approx(expected)


@pytest.mark.parametrize(
    "after", [0.5, keras.optimizers.schedules.CosineDecay(0.5, 40)]
)
def test_warmup_of_any_rate(after):
    warmup = Warmup(after, 10)
    optimizer = keras.optimizers.SGD(warmup)
    copy = keras.optimizers.SGD.from_config(optimizer.get_config())
    for step in (0, 4, 9, 10, 30):
        full = float(after(step)) if callable(after) else after
        expected = full * min((step + 1) / 10, 1)
        for each in (warmup, copy._learning_rate):
            np.testing.assert_allclose(float(each(step)), expected, rtol=1e-6)
