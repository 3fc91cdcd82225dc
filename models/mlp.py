"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from models.checks import check_dropout
from models.seeds import layer_seeds


def mlp(
    input_shape: Sequence[int] = (28, 28, 1),
    num_classes: int = 10,
    hidden: Sequence[int] = (500, 300),
    dropout: float = 0.0,
    seed: int | None = None,
) -> keras.Model:
    """Builds dense layers with ReLU, a softmax layer's logits on top.

    Args:
      input_shape: of one example, any rank; it is flattened.
      num_classes: number of logits.
      hidden: units of each hidden layer, at least one unit each.
      dropout: rate after each hidden layer, in [0, 1).
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from `[batch, *input_shape]` to logits
      `[batch, num_classes]`.

    Raises:
      ValueError: `dropout` is outside [0, 1).
    """
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, len(hidden) + 1))

    def glorot():
        return keras.initializers.GlorotUniform(seed=next(seeds))

    inputs = keras.Input(tuple(input_shape), name="images")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=glorot(),
            name=f"hidden{i}",
        )(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{i}")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=glorot(), name="logits"
    )(x)
    return keras.Model(inputs, logits, name="mlp")
