"""What zeros save on disk: sparse checkpoints, and sizes beside other ways."""

from tf_ssl.sparse.storage.checkpoint import load_sparse, save_sparse
from tf_ssl.sparse.storage.sizes import KernelSizes, Sizes, sizes

__all__ = ["KernelSizes", "Sizes", "load_sparse", "save_sparse", "sizes"]
