"""Several regularizers on one variable."""

from __future__ import annotations

import keras


@keras.saving.register_keras_serializable(package="tf_ssl")
class RegularizerSum(keras.regularizers.Regularizer):
    """The sum of regularizers: group kinds of different strengths, say.

    >>> from keras.regularizers import L1, L2
    >>> kernel = keras.ops.convert_to_tensor([[1.0, -2.0]])
    >>> float(RegularizerSum([L1(0.5), L2(0.25)])(kernel))
    2.75

    Args:
        regularizers: Keras regularizers, or what `keras.regularizers.get`
            takes. At least one.

    Raises:
        ValueError: There are none, or one is none.
    """

    def __init__(self, regularizers):
        if not isinstance(regularizers, tuple | list) or not regularizers:
            raise ValueError(
                "Invalid value for argument regularizers. Expected a list of "
                f"at least one. Received: regularizers={regularizers!r}"
            )
        self.regularizers = [keras.regularizers.get(r) for r in regularizers]
        if None in self.regularizers:
            raise ValueError(
                "Invalid value for argument regularizers. Expected no None "
                f"among them. Received: regularizers={regularizers!r}"
            )

    def __call__(self, x):
        """Penalty of a variable, a scalar in float32 (float64)."""
        penalties = [regularizer(x) for regularizer in self.regularizers]
        total = penalties[0]
        for penalty in penalties[1:]:
            total = keras.ops.add(total, penalty)
        return total

    def get_config(self):
        """JSON-able: what `__init__` takes."""
        return {
            "regularizers": [
                keras.regularizers.serialize(r) for r in self.regularizers
            ]
        }

    def __repr__(self):
        return f"RegularizerSum({self.regularizers!r})"
