"""An embedding of words with given vectors and of words that learn theirs."""

from __future__ import annotations

import keras
import numpy as np

import tf_ssl


@keras.saving.register_keras_serializable(package="models")
class PartlyFixedEmbedding(keras.layers.Embedding):
    """Words below a number have a vector that is trained, the others a given.

        y = E[word]          word < n = input_dim - num_fixed
        y = F[word - n]      else

    with `embeddings` E `[n, output_dim]` and `fixed` F `[num_fixed,
    output_dim]`, which is not trained and zero until it is assigned.

    Example:
    >>> import numpy as np
    >>> layer = PartlyFixedEmbedding(5, 2, num_fixed=2)
    >>> layer.build()
    >>> _ = layer.fixed.assign([[1.0, 2.0], [3.0, 4.0]])
    >>> layer(np.array([4])).numpy()
    array([[3., 4.]], dtype=float32)

    Args:
      input_dim: number of words.
      output_dim: number of features.
      num_fixed: how many of them, the last ones, have a given vector.
      **kwargs: of `keras.layers.Embedding`.

    Raises:
      ValueError: no word is left to train, or none is fixed.
    """

    def __init__(self, input_dim, output_dim, num_fixed, **kwargs):
        if not 1 <= num_fixed < input_dim:
            raise ValueError(
                "Invalid value for argument num_fixed. Expected an integer in "
                f"[1, {input_dim - 1}]. Received: num_fixed={num_fixed}"
            )
        super().__init__(input_dim, output_dim, **kwargs)
        self.num_fixed = num_fixed

    def build(self, input_shape=None):
        if self.built:
            return
        self._embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim - self.num_fixed, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )
        self.fixed = self.add_weight(
            name="fixed",
            shape=(self.num_fixed, self.output_dim),
            initializer="zeros",
            trainable=False,
        )
        self.built = True

    def call(self, inputs):
        words = keras.ops.cast(inputs, "int32")
        first = self.input_dim - self.num_fixed  # with a given vector
        trained = keras.ops.take(
            self._embeddings, keras.ops.minimum(words, first - 1), axis=0
        )
        fixed = keras.ops.take(
            self.fixed, keras.ops.maximum(words - first, 0), axis=0
        )
        is_fixed = keras.ops.expand_dims(words >= first, -1)
        y = keras.ops.where(is_fixed, fixed, trained)
        return keras.ops.cast(y, self.compute_dtype)

    @property
    def variable_serialization_spec(self):
        spec = super().variable_serialization_spec
        return {mode: [*names, "fixed"] for mode, names in spec.items()}

    def get_config(self):
        return {**super().get_config(), "num_fixed": self.num_fixed}


@tf_ssl.structure_rule(PartlyFixedEmbedding)
class PartlyFixedEmbeddingRule(tf_ssl.rules.Embedding):
    """A feature is a column of both tables."""

    def declare(self):
        super().declare()
        # Not trained, so in no norm, but cut with the others.
        self.carries(self.layer.fixed, 1)

    def constants(self, read, inputs):
        tables = np.concatenate([read(self.table), read(self.layer.fixed)])
        same = (tables == tables[:1]).all(axis=0)
        return [{-1: np.where(same, tables[0], np.nan)}]
