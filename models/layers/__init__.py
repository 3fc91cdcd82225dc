"""Keras layers that the networks need and Keras does not have."""

from models.layers.attention_flow import AttentionFlow
from models.layers.attention_pooling import AttentionPooling
from models.layers.local_response_normalization import (
    LocalResponseNormalization,
)
from models.layers.masked_scores import masked_scores
from models.layers.partly_fixed_embedding import PartlyFixedEmbedding
from models.layers.rhn import RHN, RHNCell
from models.layers.tied_softmax import TiedSoftmax
from models.layers.word_dropout import WordDropout

__all__ = [
    "RHN",
    "AttentionFlow",
    "AttentionPooling",
    "LocalResponseNormalization",
    "PartlyFixedEmbedding",
    "RHNCell",
    "TiedSoftmax",
    "WordDropout",
    "masked_scores",
]
