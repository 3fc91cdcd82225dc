"""Each check lets good values pass and says exactly what is wrong."""

import numpy as np
import pytest

from tf_ssl import checks


def _message(check, *arguments):
    with pytest.raises(ValueError) as error:
        check(*arguments)
    return str(error.value)


def test_choice():
    checks.choice("by", "b", ("a", "b"))
    for value in ("c", 1, ["a"], None):
        assert _message(checks.choice, "by", value, ("a", "b")) == (
            "Invalid value for argument by. Expected one of {'a', 'b'}. "
            f"Received: by={value!r}"
        )


def test_integer():
    number = checks.integer("n", np.int64(3), 3)
    assert number == 3 and type(number) is int
    for value in (2, 3.0, True, "3", None):
        assert _message(checks.integer, "n", value, 3) == (
            "Invalid value for argument n. Expected an integer >= 3. "
            f"Received: n={value!r}"
        )


def test_not_negative():
    number = checks.not_negative("x", np.float32(0.5))
    assert number == 0.5 and type(number) is float
    assert checks.not_negative("x", 0) == 0.0
    for value in (-1e-9, float("nan"), float("inf"), True, "1", None):
        assert _message(checks.not_negative, "x", value) == (
            "Invalid value for argument x. Expected a finite number >= 0. "
            f"Received: x={value!r}"
        )


def test_fraction():
    assert checks.fraction("x", 1) == 1.0
    for value in (-0.1, 1.1, float("nan"), None):
        assert _message(checks.fraction, "x", value) == (
            "Invalid value for argument x. Expected a number in [0, 1]. "
            f"Received: x={value!r}"
        )
