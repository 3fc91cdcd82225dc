"""Bytes of kernels: dense, compressed, sparse, and with dead rows removed."""

from __future__ import annotations

import dataclasses
import gzip
import io

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from tf_ssl.sparse.layers.sparse_kernel_layer import SparseKernelLayer
from tf_ssl.sparse.storage import formats
from tf_ssl.structures.kernels import all_layers, find_kernels


@dataclasses.dataclass(frozen=True)
class KernelSizes:
    """Bytes of a kernel in several forms.

    Attributes:
        name: Of the kernel.
        elements: Its weights.
        zeros: How many are 0.
        dense: As it is.
        gzip: The same, compressed by gzip.
        csr: Compressed rows: values, and indices of the smallest type.
        csr_indices: Of these, indices.
        block: Compressed rows of blocks; of those in `formats.BLOCKS`, the one
            of the fewest bytes. None where none divides the kernel.
        block_shape: Its (rows, columns): outputs and inputs.
        removed: Dense, without rows and columns that are all zero: what
            `tf_ssl.shrink` can leave. It needs no indices.
    """

    name: str
    elements: int
    zeros: int
    dense: int
    gzip: int
    csr: int
    csr_indices: int
    block: int | None
    block_shape: tuple[int, int] | None
    removed: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the kernels of a model: print it.

    Attributes:
        kernels: `KernelSizes` of each.
        others: Bytes of all other weights and statistics.
    """

    kernels: list[KernelSizes]
    others: int

    @property
    def total(self) -> KernelSizes:
        """Sums over kernels; where there is no block, those of CSR."""

        def add(name):
            return sum(getattr(kernel, name) for kernel in self.kernels)

        sums = ("elements", "zeros", "dense", "gzip", "csr", "csr_indices")
        block = sum(k.csr if k.block is None else k.block for k in self.kernels)
        return KernelSizes(
            name="total",
            block=block,
            block_shape=None,
            removed=add("removed"),
            **{name: add(name) for name in sums},
        )

    def __str__(self):
        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
        table.add_column("kernel", no_wrap=True)
        for name in (
            *("elements", "zeros", "dense", "gzip", "CSR", "of it indices"),
            *("block", "dead rows, columns removed"),
        ):
            table.add_column(name, justify="right", no_wrap=True)
        for kernel in (*self.kernels, self.total):
            table.add_row(*_cells(kernel))
        console = Console(
            file=io.StringIO(),
            width=1000,
            color_system=None,
            legacy_windows=False,
        )
        console.print(table)
        lines = console.file.getvalue().splitlines()
        text = "\n".join(line.rstrip() for line in lines if line.strip())
        return (
            f"{text}\nbytes, times smaller than dense; other weights: "
            f"{self.others:,} bytes"
        )


def sizes(model: keras.Model) -> Sizes:
    """Bytes of each kernel: dense, gzip, CSR, blocks, dead structures removed.

    Indices cost as much as values: unstructured zeros save less on disk than
    their share, while removed rows and columns need none.

    Args:
        model: Built Keras model, sparsified or not.

    Raises:
        TypeError: No Keras model.
        ValueError: It is not built.

    >>> zeros = keras.layers.Dense(4, kernel_initializer="zeros", name="fc")
    >>> sizes(keras.Sequential([keras.Input((8,)), zeros])).total.removed
    0

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016, section 1: the overhead of indices.
    """
    found, counted = [], set()
    for kernel in find_kernels(model):
        found.append((kernel.name, kernel.variable))
        counted.add(id(kernel.variable))
    for layer in all_layers(model):
        if isinstance(layer, SparseKernelLayer):
            found.append((f"{layer.name}/kernel", layer))
            counted |= {id(layer.values), id(layer.positions)}
    others = [v for v in model.variables if id(v) not in counted]
    return Sizes(
        [_sizes(name, of) for name, of in found],
        sum(keras.ops.convert_to_numpy(v).nbytes for v in others),
    )


def _sizes(name, of) -> KernelSizes:
    kernel = (
        of.to_dense()
        if isinstance(of, SparseKernelLayer)
        else keras.ops.convert_to_numpy(of)
    )
    matrix = formats.to_matrix(kernel)
    alive = matrix != 0
    csr = formats.encode(matrix)
    block_shape, block = formats.smallest(matrix, formats.BLOCKS)
    rows, columns = (np.count_nonzero(alive.any(axis=a)) for a in (1, 0))
    return KernelSizes(
        name=name,
        elements=kernel.size,
        zeros=kernel.size - np.count_nonzero(alive),
        dense=kernel.nbytes,
        gzip=len(gzip.compress(kernel.tobytes(), mtime=0)),
        csr=formats.num_bytes(csr),
        csr_indices=csr["starts"].nbytes + csr["columns"].nbytes,
        block=None if block is None else formats.num_bytes(block),
        block_shape=block_shape,
        removed=int(rows * columns * kernel.itemsize),
    )


def _cells(kernel):
    def smaller(size):
        if size is None:
            return "-"
        return f"{size:,} ({kernel.dense / size:.2f}x)" if size else "0"

    block = smaller(kernel.block)
    if kernel.block_shape is not None:
        block += " {}×{}".format(*kernel.block_shape)
    zeros = kernel.zeros / kernel.elements if kernel.elements else 0.0
    return (
        kernel.name,
        f"{kernel.elements:,}",
        f"{zeros:.1%}",
        f"{kernel.dense:,}",
        smaller(kernel.gzip),
        smaller(kernel.csr),
        f"{kernel.csr_indices:,}",
        block,
        smaller(kernel.removed),
    )
