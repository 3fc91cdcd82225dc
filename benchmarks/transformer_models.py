"""Transformers of KerasHub, and the same built by hand; half of them planted.

For benchmarks/shrink_transformers.py.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of ViT-B and BERT-base.

    Attributes:
        layers: Number of them.
        width: Of the residual stream; a multiple of `heads`.
        heads: Of a layer.
        inner: Units of a layer between its two dense layers.
        image: Height and width, pixels.
        patch: Height and width, pixels.
        length: Tokens.
        vocabulary: Different ones.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    inner: int = 3072
    image: int = 224
    patch: int = 16
    length: int = 128
    vocabulary: int = 1000


# --- by KerasHub --------------------------------------------------------------


def hub_vit(sizes):
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(sizes.image, sizes.image, 3),
        patch_size=sizes.patch,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        hidden_dim=sizes.width,
        mlp_dim=sizes.inner,
    )


def hub_bert(sizes):
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=sizes.vocabulary,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        hidden_dim=sizes.width,
        intermediate_dim=sizes.inner,
        max_sequence_length=sizes.length,
    )


# --- by hand ------------------------------------------------------------------


class Positions(layers.Layer):
    """Adds a vector of each position, behind a class token if there is one.

    Args:
        class_token: Whether a learned token comes first.
    """

    def __init__(self, class_token=False, **kwargs):
        super().__init__(**kwargs)
        self.class_token = class_token

    def build(self, input_shape):
        _, length, width = input_shape
        if self.class_token:
            self.token = self.add_weight(shape=[1, 1, width], name="token")
            length += 1
        self.positions = self.add_weight(shape=[length, width], name="table")

    def call(self, inputs):
        if self.class_token:
            token = keras.ops.repeat(
                self.token, keras.ops.shape(inputs)[0], axis=0
            )
            inputs = keras.ops.concatenate([token, inputs], axis=1)
        return inputs + self.positions


def _attention(sizes, heads):
    return layers.MultiHeadAttention(heads, sizes.width // sizes.heads)


def hand_vit(sizes, heads, inner):
    """The ViT with so many heads and inner units; the norms come first."""
    inputs = keras.Input([sizes.image, sizes.image, 3])
    patch = sizes.patch
    x = layers.Conv2D(sizes.width, patch, strides=patch)(inputs)
    x = layers.Reshape([-1, sizes.width])(x)
    x = Positions(class_token=True)(x)
    for _ in range(sizes.layers):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([_attention(sizes, heads)(y, y), x])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(inner, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(sizes.width)(y)])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(inputs, x, name="by_hand")


def hand_bert(sizes, heads, inner):
    """The BERT with so many heads and inner units; the norms come last."""

    def gelu(x):
        return keras.activations.gelu(x, approximate=True)

    ids, segments, mask = inputs = [
        keras.Input([sizes.length], dtype="int32", name=name)
        for name in ("token_ids", "segment_ids", "padding_mask")
    ]
    x = layers.Embedding(sizes.vocabulary, sizes.width)(ids)
    x = Positions()(x)
    x = layers.Add()([x, layers.Embedding(2, sizes.width)(segments)])
    x = layers.LayerNormalization(epsilon=1e-12)(x)
    seen = keras.ops.cast(mask, "bool")[:, None, :]
    for _ in range(sizes.layers):
        y = _attention(sizes, heads)(x, x, attention_mask=seen)
        x = layers.LayerNormalization(epsilon=1e-12)(layers.Add()([x, y]))
        y = layers.Dense(inner, activation=gelu)(x)
        y = layers.Dense(sizes.width)(y)
        x = layers.LayerNormalization(epsilon=1e-12)(layers.Add()([x, y]))
    pooled = layers.Dense(sizes.width, activation="tanh")(x[:, 0, :])
    return keras.Model(
        {tensor.name: tensor for tensor in inputs},
        {"sequence_output": x, "pooled_output": pooled},
        name="by_hand",
    )


# --- inputs -------------------------------------------------------------------


def images(sizes, batch):
    size = sizes.image
    random = np.random.default_rng(1)
    return random.standard_normal((batch, size, size, 3)).astype("float32")


def tokens(sizes, batch):
    """Half of the examples end after three quarters of the length."""
    shape = (batch, sizes.length)
    random = np.random.default_rng(1)
    mask = np.ones(shape, "int32")
    mask[1::2, 3 * sizes.length // 4 :] = 0
    segments = np.zeros(shape, "int32")
    segments[:, sizes.length // 2 :] = 1
    ids = random.integers(0, sizes.vocabulary, shape).astype("int32")
    return {"token_ids": ids, "segment_ids": segments, "padding_mask": mask}


# Name -> (by KerasHub, by hand, inputs, whether the length is open).
TRANSFORMERS = {
    "vit": (hub_vit, hand_vit, images, False),
    "bert": (hub_bert, hand_bert, tokens, True),
}


# --- half of the units --------------------------------------------------------


def plant_half(structures, sizes) -> dict[str, int]:
    """Zeroes half of the heads and of the inner units of each layer.

    Returns:
        "heads" and "inner" -> structures of that kind, one a layer.

    Raises:
        RuntimeError: There are not as many as layers.
    """
    random = np.random.default_rng(5)
    found = {"heads": [], "inner": []}
    for structure in structures:
        if structure.kind == "heads" or structure.size == sizes.heads:
            found["heads"].append(structure)
        elif structure.size == sizes.inner:
            found["inner"].append(structure)
    for kind, group in found.items():
        if len(group) != sizes.layers:
            raise RuntimeError(
                f"Expected {sizes.layers} structures of {kind}, one a layer. "
                f"Received: {len(group)} among "
                f"{[(s.name, s.size, s.kind) for s in structures]}; skipped: "
                f"{structures.skipped[:10]}"
            )
        for structure in group:
            dead = random.permutation(structure.size)[: structure.size // 2]
            structure.zero(dead)
    return {kind: len(group) for kind, group in found.items()}
