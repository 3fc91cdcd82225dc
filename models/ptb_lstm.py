"""The language model of two LSTM layers of Zaremba et al."""

from __future__ import annotations

import dataclasses

import keras

from models.checks import (
    check_at_least_one,
    check_batch_size,
    check_dropout,
    check_one_of,
)
from models.seeds import layer_seeds


@dataclasses.dataclass(frozen=True)
class Size:
    """What the paper calls a small, medium or large network.

    Attributes:
      units: of the embedding and both LSTM layers.
      init_scale: weights begin uniform in [-init_scale, init_scale].
      dropout: rate.
    """

    units: int
    init_scale: float
    dropout: float


SIZES = {
    "small": Size(200, 0.1, 0.0),
    "medium": Size(650, 0.05, 0.5),
    "large": Size(1500, 0.04, 0.65),
}


def ptb_lstm(
    vocab_size: int = 10000,
    size: str = "large",
    hidden: tuple[int, int] | None = None,
    embedding: int | None = None,
    dropout: float | None = None,
    stateful: bool = False,
    batch_size: int | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Builds an embedding, two LSTM layers and a softmax layer's logits.

    66,022,000 parameters for 10,000 words in the large size.

    Dropout is on what goes up, never on what goes from step to step: on the
    embedded words and on what each LSTM layer gives, with fresh masks for every
    step. Forget gates begin with a bias of 0.

    Args:
      vocab_size: words.
      size: "small", "medium" or "large": 200, 650 or 1500 units, initial
        weights within 0.1, 0.05 or 0.04, dropout of 0, 0.5 or 0.65.
      hidden: units of the two LSTM layers, in place of the size's. (373, 315)
        and (381, 535) are those of the talk's two smaller networks.
      embedding: size of the embedding, in place of the size's.
      dropout: rate in [0, 1), in place of the size's.
      stateful: whether a batch begins with the states in which the one before
        ended; `model.reset_states()` of the LSTM layers sets them to zero.
      batch_size: rows of a batch; needed if stateful.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from words, int32 `[batch, steps]`, to logits of the
      word that follows each, `[batch, steps, vocab_size]`.

    Raises:
      ValueError: an argument is outside its range, or a stateful model has no
        batch size.

    Reference:
      Zaremba et al., Recurrent neural network regularization, 2014, section
      4.1; Wen et al., Learning intrinsic sparse structures within long
      short-term memory, ICLR 2018, table 1.
    """
    check_one_of("size", size, SIZES)
    defaults = SIZES[size]
    hidden = (defaults.units,) * 2 if hidden is None else tuple(hidden)
    embedding = defaults.units if embedding is None else embedding
    dropout = defaults.dropout if dropout is None else dropout
    if len(hidden) != 2:
        raise ValueError(
            "Invalid value for argument hidden. Expected the units of two "
            f"layers. Received: hidden={hidden}"
        )
    check_at_least_one(
        vocab_size=vocab_size, hidden=hidden, embedding=embedding
    )
    check_dropout(dropout)
    check_batch_size(batch_size, stateful)
    seeds = iter(layer_seeds(seed, 7))

    def uniform():
        scale = defaults.init_scale
        return keras.initializers.RandomUniform(-scale, scale, next(seeds))

    words = keras.Input(
        batch_shape=(batch_size, None), dtype="int32", name="words"
    )
    x = keras.layers.Embedding(
        vocab_size, embedding, uniform(), name="embedding"
    )(words)
    x = keras.layers.Dropout(dropout, name="dropout0")(x)
    for i, units in enumerate(hidden, 1):
        x = keras.layers.LSTM(
            units,
            kernel_initializer=uniform(),
            recurrent_initializer=uniform(),
            unit_forget_bias=False,
            return_sequences=True,
            stateful=stateful,
            name=f"lstm{i}",
        )(x)  # [batch, steps, units]
        x = keras.layers.Dropout(dropout, name=f"dropout{i}")(x)
    logits = keras.layers.Dense(
        vocab_size,
        kernel_initializer=uniform(),
        bias_initializer=uniform(),
        name="logits",
    )(x)
    return keras.Model(words, logits, name="ptb_lstm")
