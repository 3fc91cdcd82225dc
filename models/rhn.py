"""The language model of one recurrent highway layer of Zilly et al."""

from __future__ import annotations

import keras

from models.checks import check_at_least_one, check_batch_size, check_dropout
from models.layers import RHN, TiedSoftmax, WordDropout
from models.seeds import layer_seeds


def rhn(
    vocab_size: int = 10000,
    width: int = 830,
    depth: int = 10,
    word_dropout: float = 0.25,
    input_dropout: float = 0.75,
    recurrent_dropout: float = 0.25,
    output_dropout: float = 0.75,
    stateful: bool = False,
    batch_size: int | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Builds an embedding, a recurrent highway layer and a tied softmax layer.

    23,482,400 parameters for 10,000 words at width 830 and depth 10. One table
    is the embedding and the softmax layer's kernel, so its width is that of the
    state.

    All masks of dropout are drawn once a sequence and serve all its steps. The
    defaults are Zilly's; the talk trains with all rates times 0.6.

    Args:
      vocab_size: words.
      width: of the embedding and the state; 517 is that of the talk's network
        of equal perplexity.
      depth: micro-layers a step.
      word_dropout: share of words that are dropped, all their occurrences in a
        sequence together, in [0, 1).
      input_dropout: rate at the recurrent layer's input, in [0, 1).
      recurrent_dropout: rate at the state where it is read, in [0, 1).
      output_dropout: rate ahead of the softmax layer, in [0, 1).
      stateful: whether a batch begins with the states in which the one before
        ended.
      batch_size: rows of a batch; needed if stateful.
      seed: of the initial weights; None draws one.

    Returns:
      A Functional model from words, int32 `[batch, steps]`, to logits of the
      word that follows each, `[batch, steps, vocab_size]`.

    Raises:
      ValueError: an argument is outside its range, or a stateful model has no
        batch size.

    Reference:
      Zilly et al., Recurrent highway networks, ICML 2017, section 5; Wen et
      al., Learning intrinsic sparse structures within long short-term memory,
      ICLR 2018, table 2.
    """
    check_at_least_one(vocab_size=vocab_size, width=width, depth=depth)
    check_dropout(word_dropout, "word_dropout")
    check_dropout(input_dropout, "input_dropout")
    check_dropout(recurrent_dropout, "recurrent_dropout")
    check_dropout(output_dropout, "output_dropout")
    check_batch_size(batch_size, stateful)
    seeds = iter(layer_seeds(seed, 3))

    def uniform():
        return keras.initializers.RandomUniform(-0.04, 0.04, next(seeds))

    words = keras.Input(
        batch_shape=(batch_size, None), dtype="int32", name="words"
    )
    table = TiedSoftmax(
        vocab_size, width, embeddings_initializer=uniform(), name="embedding"
    )
    x = WordDropout(word_dropout, name="word_dropout")(table(words), words)
    x = RHN(
        width,
        depth,
        kernel_initializer=uniform(),
        recurrent_initializer=uniform(),
        dropout=input_dropout,
        recurrent_dropout=recurrent_dropout,
        return_sequences=True,
        stateful=stateful,
        name="rhn",
    )(x)  # [batch, steps, width]
    x = keras.layers.SpatialDropout1D(output_dropout, name="output_dropout")(x)
    return keras.Model(words, table(x, reverse=True), name="rhn")
