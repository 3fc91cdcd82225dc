"""C++ kernels for TensorFlow, with a plain TensorFlow fallback for each."""

from custom_ops.library import describe, status
from custom_ops.ternary import (
    digits_per_word,
    num_words,
    ternary_decode,
    ternary_encode,
    ternary_scalers,
)

__all__ = [
    "describe",
    "digits_per_word",
    "num_words",
    "status",
    "ternary_decode",
    "ternary_encode",
    "ternary_scalers",
]
