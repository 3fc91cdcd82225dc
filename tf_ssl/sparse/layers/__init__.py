"""Layers with sparse kernels."""

from tf_ssl.sparse.layers.sparse_conv2d import SparseConv2D
from tf_ssl.sparse.layers.sparse_dense import SparseDense

__all__ = ["SparseConv2D", "SparseDense"]
