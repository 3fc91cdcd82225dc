"""Keras layers that the networks need and Keras does not have."""

from models.layers.local_response_normalization import (
    LocalResponseNormalization,
)
from models.layers.rhn import RHN, RHNCell
from models.layers.tied_softmax import TiedSoftmax

__all__ = ["RHN", "LocalResponseNormalization", "RHNCell", "TiedSoftmax"]
