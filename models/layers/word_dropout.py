"""Dropout of words: all occurrences in a sequence, or none."""

from __future__ import annotations

import keras

import tf_ssl


@keras.saving.register_keras_serializable(package="models")
class WordDropout(keras.layers.Layer):
    """Zeroes the embedded vectors of some words, the others grow by 1/(1-rate).

        y[b, t] = x[b, t] m[b, word[b, t]] / (1 - rate)

    with m 1 at 1 - rate of the words and 0 at the others: all occurrences of a
    word in a sequence share one fate. Only in training.

    Example:
    >>> import numpy as np
    >>> layer = WordDropout(0.5, seed=1)
    >>> words = np.array([[3, 7, 3]])
    >>> layer(np.ones((1, 3, 2), "float32"), words).shape
    TensorShape([1, 3, 2])

    Args:
      rate: share of words that are dropped, in [0, 1).
      seed: of the masks.
      **kwargs: of `keras.layers.Layer`.

    Call arguments:
      embedded: x `[batch, steps, features]`.
      words: their numbers, integers `[batch, steps]`.
      training: whether words are dropped.

    Raises:
      ValueError: `rate` is outside its range.

    Reference:
      Gal and Ghahramani, A theoretically grounded application of dropout in
      recurrent neural networks, NIPS 2016, section 4.2.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(
                "Invalid value for argument rate. Expected a rate in [0, 1). "
                f"Received: rate={rate}"
            )
        self.rate = rate
        self.seed = seed
        self.supports_masking = True
        if rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, embedded, words, training=False):
        if not training or self.rate == 0:
            return embedded
        batch_size, steps = keras.ops.shape(words)
        kept = keras.random.uniform(
            (batch_size, steps), dtype="float32", seed=self.seed_generator
        )
        kept = keras.ops.cast(kept >= self.rate, embedded.dtype)
        # Each step takes the number of the first step with the same word.
        same = words[:, :, None] == words[:, None, :]  # [batch, step, step]
        first = keras.ops.argmax(keras.ops.cast(same, "int8"), axis=2)
        kept = keras.ops.take_along_axis(kept, first, axis=1)
        return embedded * keras.ops.expand_dims(kept, -1) / (1 - self.rate)

    def compute_output_shape(self, embedded_shape, words_shape=None):
        return embedded_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@tf_ssl.structure_rule(WordDropout)
class WordDropoutRule(tf_ssl.Rule):
    """Treats features alike."""


@tf_ssl.multiply_add_rule(WordDropout)
def _no_multiply_adds(layer, call):
    return 0
