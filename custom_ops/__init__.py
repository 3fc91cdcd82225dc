"""C++ kernels for TensorFlow, with a plain TensorFlow fallback for each."""

from custom_ops.library import describe
from custom_ops.library import status
from custom_ops.ternary import digits_per_word
from custom_ops.ternary import num_words
from custom_ops.ternary import ternary_decode
from custom_ops.ternary import ternary_encode
from custom_ops.ternary import ternary_scalers

__all__ = [
    "describe",
    "digits_per_word",
    "num_words",
    "status",
    "ternary_decode",
    "ternary_encode",
    "ternary_scalers",
]
