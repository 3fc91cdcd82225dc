"""Groups of kernels as structures, for zeros that are exact."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tf_ssl.structures import group_specs, groups
from tf_ssl.structures.kernels import find_kernels, no_match
from tf_ssl.structures.structure import Slice, Structure


def kernel_structures(
    model: keras.Model, patterns: Mapping[str, object]
) -> list[Structure]:
    """Makes each group of a kernel a unit of a structure.

    The groups are those of `tf_ssl.GroupLasso`, whose sub-gradients come near
    to zero but not to it. As structures they take part in all that works with
    these: proximal steps of `tf_ssl.GroupLassoOptimizer`, which end at exact
    zeros, `callbacks.FreezeZeros`, reports. Blocks that are zero then are what
    the block kernels of `tf_ssl.sparsify` leave out.

    Args:
        model: Built model.
        patterns: Pattern of kernels, as in `tf_ssl.regularize`, to one kind of
            groups: a name such as "shape", `("axis", (...))` or
            `("block", (h, w))`: blocks of h filters times w columns, columns
            in the order (height, width, cin); None: no structure. The last
            pattern that matches a kernel counts.

    Returns:
        A `Structure` of kind "groups" a kernel, named
        `"<path of the kernel>/<kind>"`.

    Raises:
        ValueError: A pattern matches no kernel, there are no such groups, or a
            kernel does not have them.

    >>> model = keras.Sequential([keras.Input((6, 6, 8)),
    ...                           keras.layers.Conv2D(16, 3, name="conv")])
    >>> found = kernel_structures(model, {"conv": ("block", (16, 8))})
    >>> [(structure.name, structure.size) for structure in found]
    [('conv/kernel/block16x8', 9)]

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016; blocks are in the authors' Caffe as
    `block_group_lasso`.
    """
    kernels = find_kernels(model)
    chosen = {}
    for pattern, spec in patterns.items():
        hits = [kernel for kernel in kernels if kernel.matches(pattern)]
        if not hits:
            raise no_match(kernels, pattern)
        chosen.update(dict.fromkeys(hits, spec))
    return [
        _structure(kernel, chosen[kernel])
        for kernel in kernels
        if chosen.get(kernel) is not None
    ]


def _structure(kernel, spec) -> Structure:
    kind = group_specs.normalize(spec)
    if len(group_specs.as_tuple(kind)) > 1:
        raise ValueError(
            "Invalid value for argument patterns. Expected one kind of groups "
            f"for {kernel.name}. Received: {spec!r}"
        )
    (kind,) = group_specs.as_tuple(kind)
    try:
        part = groups.partition(
            kind, kernel.variable.shape, kernel.kind, kernel.conv_groups
        )
    except ValueError as error:
        raise ValueError(f"{kernel.name}: {error}") from error
    norms = part.norms(np.zeros(part.kernel_shape))
    units = part.spread(np.arange(norms.size).reshape(norms.shape))
    return Structure(
        f"{kernel.name}/{_name(kind)}",
        norms.size,
        (Slice(kernel.variable, "out", units),),
        kind="groups",
    )


def _name(kind) -> str:
    """`block16x8`, `axis0x1`, or the name itself."""
    if isinstance(kind, str):
        return kind
    return kind[0] + "x".join(map(str, kind[1]))
