"""Sums of regularizers: value, config, errors."""

import keras
import numpy as np
import pytest

from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.penalties.regularizer_sum import RegularizerSum


def test_sum():
    kernel = np.array([[3.0, 0.0], [4.0, 1.0]], np.float32)
    total = RegularizerSum(
        [GroupLasso(0.1, "filter"), GroupLasso(0.01, "channel"), "l2"]
    )(keras.ops.convert_to_tensor(kernel))
    expected = 0.1 * (5 + 1) + 0.01 * (3 + 17**0.5) + 0.01 * 26
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_keras_round_trip(tmp_path):
    parts = [GroupLasso(0.1, block=(1, 2)), keras.regularizers.L2(0.5)]
    model = keras.Sequential(
        [
            keras.Input([4]),
            keras.layers.Dense(3, kernel_regularizer=RegularizerSum(parts)),
        ]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = loaded.layers[0].kernel_regularizer
    assert type(found) is RegularizerSum
    lasso, l2 = found.regularizers
    assert lasso.__dict__ == parts[0].__dict__
    assert l2.get_config() == {"l2": 0.5}
    np.testing.assert_allclose(loaded.losses, model.losses, rtol=1e-6)


@pytest.mark.parametrize("value", [[], None, GroupLasso(0.1)])
def test_not_a_list(value):
    with pytest.raises(ValueError) as error:
        RegularizerSum(value)
    assert str(error.value) == (
        "Invalid value for argument regularizers. Expected a list of at least "
        f"one. Received: regularizers={value!r}"
    )


def test_none_among_them():
    with pytest.raises(ValueError) as error:
        RegularizerSum(["l2", None])
    assert str(error.value) == (
        "Invalid value for argument regularizers. Expected no None among "
        "them. Received: regularizers=['l2', None]"
    )
