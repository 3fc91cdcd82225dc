"""An embedding whose table also gives the logits of words."""

from __future__ import annotations

import keras

import tf_ssl


@keras.saving.register_keras_serializable(package="models")
class TiedSoftmax(keras.layers.ReversibleEmbedding):
    """Table E `[words, features]` of an embedding and of a softmax layer.

        layer(words)                  E[words]        [..., features]
        layer(hidden, reverse=True)   hidden E^T + b  [..., words]

    Example:
    >>> layer = TiedSoftmax(input_dim=10, output_dim=4)
    >>> hidden = layer(keras.ops.array([[3, 1]]))
    >>> layer(hidden, reverse=True).shape
    TensorShape([1, 2, 10])

    Args:
      input_dim: number of words.
      output_dim: number of features.
      bias_initializer: of b `[words]`.
      **kwargs: of `keras.layers.ReversibleEmbedding`, less `tie_weights` and
        `logit_soft_cap`.

    Raises:
      ValueError: one of these two is given.

    Reference:
      Press and Wolf, Using the output embedding to improve language models,
      EACL 2017.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        bias_initializer="zeros",
        **kwargs,
    ):
        for name in ("tie_weights", "logit_soft_cap"):
            if name in kwargs:
                raise ValueError(
                    "Invalid argument. Expected those of ReversibleEmbedding "
                    f"without tie_weights and logit_soft_cap. Received: {name}"
                )
        super().__init__(input_dim, output_dim, **kwargs)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True

    def build(self, input_shape=None):
        super().build(input_shape)
        self.bias = self.add_weight(
            name="bias",
            shape=(self.input_dim,),
            initializer=self.bias_initializer,
        )

    def call(self, inputs, reverse=False):
        result = super().call(inputs, reverse=reverse)
        if not reverse:
            return result
        return result + keras.ops.cast(self.bias, result.dtype)

    def compute_mask(self, inputs, mask=None):
        """Of words by `mask_zero`; that of hidden vectors is passed on.

        Keras' own layer makes it only when it runs, too late for a graph.
        """
        if keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(inputs.dtype)
        ):
            return mask
        return keras.ops.not_equal(inputs, 0) if self.mask_zero else None

    @property
    def variable_serialization_spec(self):
        spec = super().variable_serialization_spec
        return {mode: [*names, "bias"] for mode, names in spec.items()}

    def get_config(self):
        config = super().get_config()
        del config["tie_weights"], config["logit_soft_cap"]
        initializer = keras.initializers.serialize(self.bias_initializer)
        return {**config, "bias_initializer": initializer}


@tf_ssl.structure_rule(TiedSoftmax)
class TiedSoftmaxRule(tf_ssl.rules.ReversibleEmbedding):
    """As Keras' ReversibleEmbedding, with a bias of the logits."""
