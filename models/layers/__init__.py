"""Keras layers that the networks need and Keras does not have."""

from models.layers.local_response_normalization import (
    LocalResponseNormalization,
)

__all__ = ["LocalResponseNormalization"]
