"""Layers with sparse kernels; variables and arrays as layers."""

from tf_ssl.graph.sources import Constant, Weight
from tf_ssl.sparse.layers.sparse_conv2d import SparseConv2D
from tf_ssl.sparse.layers.sparse_dense import SparseDense

__all__ = ["Constant", "SparseConv2D", "SparseDense", "Weight"]
