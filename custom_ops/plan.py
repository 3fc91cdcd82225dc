"""What a sparse convolution would do, and why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from custom_ops import library
from custom_ops.sparse_conv_arguments import attributes
from custom_ops.sparse_kernel import SparseKernel


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a convolution runs: `print` it.

    Attributes:
        kernel: What runs: the name of a sparse kernel, or "dense".
        use_sparse: Whether it is a sparse one.
        pattern: See `SparseKernel.pattern`; "unstructured" where only the
            density is given.
        density: Non-zeros over elements of the kernel.
        sparse_ms: Modelled milliseconds of the fastest sparse kernel; None
            without the library, as are those below.
        dense_ms: Modelled milliseconds of TensorFlow's dense convolution.
        break_even: Fraction of zeros from which on the sparse kernel is
            modelled to be faster, in [0, 1); None: at no sparsity.
        isa: Instruction set of the kernels.
        num_threads: Threads that were reckoned with.
        code_bytes: Bytes of code that calls so far have generated for this
            kernel.
        prepared_bytes: Bytes that are kept for it, code included.
    """

    kernel: str
    use_sparse: bool
    pattern: str
    density: float
    sparse_ms: float | None = None
    dense_ms: float | None = None
    break_even: float | None = None
    isa: str | None = None
    num_threads: int | None = None
    code_bytes: int = 0
    prepared_bytes: int = 0

    @property
    def speed_up(self) -> float:
        """Modelled time of the dense over that of the sparse convolution."""
        return self.dense_ms / self.sparse_ms if self.sparse_ms else math.nan

    def __str__(self):
        zeros = f"{1 - self.density:.1%} zeros, {self.pattern}"
        if self.sparse_ms is None:
            return f"{self.kernel}: {zeros}; {library.describe()}"
        since = (
            "at no sparsity"
            if self.break_even is None
            else f"from {self.break_even:.0%} zeros on"
        )
        return (
            f"{self.kernel}: {zeros}; modelled {self.sparse_ms:.3f} ms sparse, "
            f"{self.dense_ms:.3f} ms dense ({self.speed_up:.2f}x), "
            f"{self.num_threads} thread(s); sparse is faster {since}"
        )


def plan(
    kernel,
    shape,
    strides=1,
    padding="VALID",
    dilations=1,
    groups: int = 1,
    data_format: str = "NHWC",
    *,
    density: float | None = None,
    num_threads: int | None = None,
) -> Plan:
    """Which kernel `custom_ops.sparse_conv2d` takes, and why.

    Times come from a model of the machine's kernels (floats moved, products,
    sums written), not from a measurement: `tf_ssl.sparsify` measures.

    Args:
        kernel: `SparseKernel`; or a shape `[height, width, channels / groups,
            filters]`, with `density`.
        shape: Of the input: four integers.
        strides: As in `sparse_conv2d`, as are padding, dilations, groups and
            data_format.
        padding: See there.
        dilations: See there.
        groups: See there.
        data_format: See there.
        density: Non-zeros over elements, in [0, 1], at random places.
        num_threads: None: those of TensorFlow here.

    Returns:
        `Plan`.

    Raises:
        ValueError: An argument is none of these.
        tf.errors.InvalidArgumentError: Shapes do not fit.

    >>> plan((3, 3, 256, 384), (32, 13, 13, 256), padding="SAME", density=1)
    Plan(kernel='dense', use_sparse=False, ...)
    """
    if not isinstance(kernel, SparseKernel):
        kernel = _random_kernel(kernel, density)
    elif density is not None:
        raise ValueError(
            "Invalid value for argument density. Expected None beside a "
            f"SparseKernel. Received: density={density!r}"
        )
    shape = _shape(shape)
    if num_threads is not None and (
        not isinstance(num_threads, int) or num_threads < 1
    ):
        raise ValueError(
            "Invalid value for argument num_threads. Expected an integer >= 1, "
            f"or None. Received: num_threads={num_threads!r}"
        )
    arguments = attributes(
        kernel.shape, strides, padding, dilations, groups, data_format
    )
    pattern = kernel.pattern()
    if library.ops() is None:
        return Plan("dense", False, pattern, kernel.density)
    names, numbers = _run(kernel, shape, arguments, num_threads or 0)
    num_threads, density, sparse_ms, dense_ms, use_sparse = numbers[:5]
    below, code_bytes, prepared_bytes = numbers[5:]
    return Plan(
        kernel=names[0].decode() if use_sparse else "dense",
        use_sparse=bool(use_sparse),
        pattern=pattern,
        density=float(density),
        sparse_ms=float(sparse_ms),
        dense_ms=float(dense_ms),
        break_even=float(1 - below) if below > 0 else None,
        isa=names[1].decode(),
        num_threads=int(num_threads),
        code_bytes=int(code_bytes),
        prepared_bytes=int(prepared_bytes),
    )


def is_sparse_faster(kernel: SparseKernel, x, arguments: dict) -> bool:
    """What the model says; True where sizes are not known.

    Args:
        kernel: `SparseKernel`. It keeps the answers.
        x: The input, perhaps of a graph.
        arguments: Of `sparse_conv_arguments.attributes`.
    """
    if x.shape.rank != 4 or kernel.num_nonzeros is None:
        return True
    batch, *image = x.shape
    shape = (1 if batch is None else batch, *image)
    if None in shape:
        return True
    key = (shape, *(str(value) for value in arguments.values()))
    if key not in kernel.answers:
        _, (_, _, _, dense_ms, use_sparse, *_) = _run(
            kernel, shape, arguments, 0
        )
        # Of nothing oneDNN gives a result of another shape.
        kernel.answers[key] = bool(use_sparse) or dense_ms == 0
    return kernel.answers[key]


_NONE = np.zeros([0], np.int32)


class _RandomKernel:
    """So many non-zeros somewhere."""

    def __init__(self, shape, num_nonzeros):
        self.shape = shape
        self.num_nonzeros = num_nonzeros
        self.density = num_nonzeros / math.prod(shape)
        self.positions = None

    def pattern(self):
        return "dense" if self.density == 1 else "unstructured"


def _random_kernel(shape, density):
    shape = SparseKernel.check_shape(shape)
    if (
        not isinstance(density, int | float)
        or isinstance(density, bool)
        or not 0 <= density <= 1
    ):
        raise ValueError(
            "Invalid value for argument density. Expected a number in [0, 1] "
            f"beside the shape of a kernel. Received: density={density!r}"
        )
    return _RandomKernel(shape, round(density * math.prod(shape)))


def _shape(shape) -> list[int]:
    try:
        sizes = [int(n) for n in shape]
    except (TypeError, ValueError):
        sizes = []
    if len(sizes) != 4 or min(sizes) < 0:
        raise ValueError(
            "Invalid value for argument shape. Expected four integers >= 0, "
            f"those of the input. Received: shape={shape!r}"
        )
    return sizes


def _run(kernel, shape, arguments, num_threads):
    """Names and numbers of the op, outside of any graph."""
    with tf.init_scope():
        # Positions in a graph have no contents yet: only their number counts.
        known = isinstance(kernel.positions, tf.__internal__.EagerTensor)
        op = library.ops().tern_grad_ssl_import_custom_ops_sparse_conv2d_plan
        with tf.device("CPU"):
            names, numbers = op(
                positions=kernel.positions if known else _NONE,
                num_nonzeros=-1 if known else kernel.num_nonzeros,
                input_shape=shape,
                num_threads=num_threads,
                **arguments,
            )
    return names.numpy(), numbers.numpy()
