"""Bidirectional attention flow: a network that answers with spans of a text."""

from __future__ import annotations

import keras
import numpy as np

from models.checks import check_at_least_one, check_dropout
from models.layers import (
    AttentionFlow,
    AttentionPooling,
    PartlyFixedEmbedding,
    masked_scores,
)
from models.seeds import layer_seeds

_CHARACTER_SIZE = 8  # of the embedding of a character
_CHARACTER_WINDOW = 5


def bidaf(
    vocab_size: int = 1180,
    char_vocab_size: int = 126,
    word_vectors: np.ndarray | None = None,
    d: int = 100,
    modelling1: tuple[int, int] | None = None,
    modelling2: tuple[int, int] | None = None,
    output: tuple[int, int] | None = None,
    contextual: tuple[int, int] | None = None,
    max_word_length: int = 16,
    dropout: float = 0.2,
    seed: int | None = None,
) -> keras.Model:
    """Builds BiDAF.

    2,570,703 trainable parameters and the embeddings: 2.69 million with 1180
    words, beside those with given vectors, and 126 characters.

        word      [max over its characters of conv(embedding); word's vector]
        x         highway(highway(word))       of the text and the question
        h, u      contextual(x)                of the text, of the question
        p         attention flow of h and u    `AttentionFlow`
        m         modelling2(modelling1(p))
        start     w1 . [m; p] + b1
        a         mean of m by softmax(start)  `AttentionPooling`
        end       w2 . [output([p; m; a; m * a]); p] + b2

    `contextual`, `modelling1`, `modelling2` and `output` are pairs of LSTM
    layers, forwards and backwards, with a flip and a concatenation rather than
    a Bidirectional layer, so that the two may differ in size.

    Args:
      vocab_size: words, with padding, whose vectors are trained.
      char_vocab_size: characters, with padding.
      word_vectors: float `[words, d]`, given vectors, which are not trained, of
        more words: number `vocab_size` and on. None: there are none.
      d: filters of the characters' convolution, size of a word's vector, units
        of each LSTM layer of which nothing else is said.
      modelling1: units (forwards, backwards), each d by default.
      modelling2: likewise.
      output: likewise.
      contextual: likewise.
      max_word_length: characters of a word, at least 5.
      dropout: rate in [0, 1) ahead of the convolution, of each pair of LSTM
        layers and of w1 and w2.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model. Its inputs are int32, 0 is padding: "context"
      `[batch, T]`, "context_chars" `[batch, T, max_word_length]`, "question"
      `[batch, J]`, "question_chars" `[batch, J, max_word_length]`. Its outputs
      are logits, "start" and "end" `[batch, T]`, of the answer's first and last
      word; -1e30 at padding.

    Raises:
      ValueError: an argument is outside its range, or `word_vectors` have
        another size than d.

    Departure: contextual layers have dropout for text and question, as the
      paper says; in the authors' code only for the question.

    Reference:
      Seo et al., Bidirectional attention flow for machine comprehension, ICLR
      2017; sizes, `AttentionPooling` and initial weights as in the authors'
      code.
    """
    sizes = {
        name: (d, d) if units is None else tuple(units)
        for name, units in (
            ("contextual", contextual),
            ("modelling1", modelling1),
            ("modelling2", modelling2),
            ("output", output),
        )
    }
    _check(vocab_size, char_vocab_size, word_vectors, d, sizes, max_word_length)
    check_dropout(dropout)
    seeds = iter(layer_seeds(seed, 27))

    def glorot():
        return keras.initializers.GlorotUniform(next(seeds))

    def normal():
        return keras.initializers.RandomNormal(stddev=1.0, seed=next(seeds))

    def dense(units, name, activation=None):
        return keras.layers.Dense(
            units, activation, kernel_initializer=glorot(), name=name
        )

    def directions(name):
        forward, backward = (
            keras.layers.LSTM(
                units,
                kernel_initializer=glorot(),
                recurrent_initializer=glorot(),
                return_sequences=True,
                go_backwards=way == "backward",
                name=f"{name}_{way}",
            )
            for way, units in zip(
                ("forward", "backward"), sizes[name], strict=True
            )
        )
        drop = keras.layers.Dropout(dropout, name=f"{name}_dropout")
        join = keras.layers.Concatenate(name=name)

        def both(x, mask):
            x = drop(x)
            back = keras.ops.flip(backward(x, mask=mask), axis=1)
            return join([forward(x, mask=mask), back])

        return both

    embed = _embedding(vocab_size, d, word_vectors, normal())
    spell = _spelling(char_vocab_size, d, dropout, normal(), glorot())
    highways = [
        (
            dense(2 * d, f"highway{i}", "relu"),
            dense(2 * d, f"gate{i}", "sigmoid"),
        )
        for i in (1, 2)
    ]
    in_context = directions("contextual")

    def read(words, characters, mask):
        x = keras.ops.concatenate([spell(characters), embed(words)], axis=-1)
        for transform, gate in highways:
            x = x + gate(x) * (transform(x) - x)
        return in_context(x, mask)

    inputs, masks, encoded = {}, {}, {}
    for name in ("context", "question"):
        inputs[name] = keras.Input((None,), dtype="int32", name=name)
        characters = f"{name}_chars"
        inputs[characters] = keras.Input(
            (None, max_word_length), dtype="int32", name=characters
        )
        masks[name] = keras.ops.not_equal(inputs[name], 0)
        encoded[name] = read(inputs[name], inputs[characters], masks[name])
    mask = masks["context"]
    p = AttentionFlow(glorot(), name="attention_flow")(
        encoded["context"],
        encoded["question"],
        context_mask=mask,
        question_mask=masks["question"],
    )
    m = directions("modelling1")(p, mask)
    m = directions("modelling2")(m, mask)

    def point(x, name):
        x = keras.layers.Concatenate(name=f"{name}_features")([x, p])
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
        logits = keras.ops.squeeze(dense(1, f"{name}_logits")(x), -1)
        return masked_scores(logits, mask)

    start = point(m, "start")
    a = AttentionPooling(name="attention_pooling")(m, start)
    x = keras.layers.Concatenate(name="output_features")([p, m, a, m * a])
    end = point(directions("output")(x, mask), "end")
    model = keras.Model(inputs, {"start": start, "end": end}, name="bidaf")
    if word_vectors is not None:
        model.get_layer("words").fixed.assign(word_vectors)
    return model


def _embedding(vocab_size, size, word_vectors, initializer):
    """Of words, trained and given."""
    if word_vectors is None:
        return keras.layers.Embedding(
            vocab_size, size, initializer, name="words"
        )
    num_fixed = len(word_vectors)
    return PartlyFixedEmbedding(
        vocab_size + num_fixed,
        size,
        num_fixed,
        embeddings_initializer=initializer,
        name="words",
    )


def _spelling(vocab_size, filters, dropout, of_embedding, of_kernel):
    """A function from characters `[batch, T, W]` to `[batch, T, filters]`."""
    embed = keras.layers.Embedding(
        vocab_size, _CHARACTER_SIZE, of_embedding, name="characters"
    )
    drop = keras.layers.Dropout(dropout, name="characters_dropout")
    convolve = keras.layers.Conv2D(
        filters,
        (1, _CHARACTER_WINDOW),
        activation="relu",
        kernel_initializer=of_kernel,
        name="characters_conv",
    )

    def spell(characters):
        x = convolve(drop(embed(characters)))  # [batch, T, W - 4, filters]
        return keras.ops.max(x, axis=2)

    return spell


def _check(vocab_size, char_vocab_size, word_vectors, d, sizes, word_length):
    check_at_least_one(
        vocab_size=vocab_size, char_vocab_size=char_vocab_size, d=d, **sizes
    )
    for name, units in sizes.items():
        if len(units) != 2:
            raise ValueError(
                f"Invalid value for argument {name}. Expected the units of two "
                f"layers, forwards and backwards. Received: {name}={units}"
            )
    if word_length < _CHARACTER_WINDOW:
        raise ValueError(
            "Invalid value for argument max_word_length. Expected at least "
            f"{_CHARACTER_WINDOW}. Received: max_word_length={word_length}"
        )
    if word_vectors is not None and np.shape(word_vectors)[1:] != (d,):
        raise ValueError(
            "Invalid value for argument word_vectors. Expected vectors of "
            f"d={d} numbers. Received: an array of shape "
            f"{np.shape(word_vectors)}"
        )
