"""C++ kernels for TensorFlow, with a plain TensorFlow fallback for each."""

from custom_ops.library import describe, status
from custom_ops.plan import Plan, plan
from custom_ops.sparse_conv import sparse_conv2d
from custom_ops.sparse_kernel import SparseKernel
from custom_ops.ternary import (
    GROUP,
    GROUP_BYTES,
    digits_per_word,
    num_groups,
    num_words,
    part_sizes,
    ternary_decode,
    ternary_encode,
    ternary_scalers,
    ternary_sum_trits,
)

__all__ = [
    "GROUP",
    "GROUP_BYTES",
    "Plan",
    "SparseKernel",
    "describe",
    "digits_per_word",
    "num_groups",
    "num_words",
    "part_sizes",
    "plan",
    "sparse_conv2d",
    "status",
    "ternary_decode",
    "ternary_encode",
    "ternary_scalers",
    "ternary_sum_trits",
]
