"""Random sparse convolutions, and what they must equal.

The truth is NumPy's, in float64: TensorFlow's CPU convolution (2.21, oneDNN)
is wrong for one channel, one column of outputs and a stride, such as images
[17, 9, 3, 1], a kernel [3, 3, 1, 5] and strides (1, 2).
"""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from custom_ops import SparseKernel, sparse_conv2d


@dataclasses.dataclass
class Case:
    """A convolution: arguments of `sparse_conv2d`, and a kernel with zeros."""

    x: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray | None
    arguments: dict


def sparse(random, shape, density):
    """Random numbers, all but a share of which are 0."""
    kernel = random.normal(size=shape).astype(np.float32)
    kernel[random.random(shape) >= density] = 0
    return kernel


def draw(random, least_channels=1, plain=False) -> Case:
    """Small sizes, all kinds of arguments and patterns.

    Plain ones have no strides and no explicit padding: with both, oneDNN's
    gradients fail, or end the process, for some sizes.
    """
    groups = int(random.choice([1, 1, 1, 2, 3]))
    channels = int(random.integers(least_channels, 7)) * groups
    filters = int(random.choice([1, 2, 5, 8, 16])) * groups
    taps = tuple(random.integers(1, 4, 2).tolist())
    dilations = tuple(random.choice([1, 1, 2, 3], 2).tolist())
    # oneDNN gives an output of size 0 the input's shape: not that.
    least = [(n - 1) * d + 1 for n, d in zip(taps, dilations, strict=True)]
    size = [int(n + random.integers(0, 12)) for n in least]
    batch = int(random.choice([1, 2, 3, 17]))
    padding = random.choice(["SAME", "VALID", "EXPLICIT"])
    if padding == "EXPLICIT":
        padding = tuple(
            tuple(p) for p in random.integers(0, 3, (2, 2)).tolist()
        )
    strides = tuple(random.integers(1, 4, 2).tolist())
    if plain:
        padding, strides = str(random.choice(["SAME", "VALID"])), (1, 1)
    density = random.choice([0.0, 0.05, 0.3, 1.0])
    shape = (*taps, channels // groups, filters)
    kernel = sparse(random, shape, density)
    pattern = random.choice(["elements", "columns", "blocks"])
    if pattern == "columns":
        kernel = random.normal(size=shape).astype(np.float32)
        kernel[random.random(shape[:3]) < 0.6] = 0
        kernel[..., random.random(filters) < 0.2] = 0
    elif pattern == "blocks" and filters % 8 == 0:
        kernel = random.normal(size=shape).astype(np.float32)
        blocks = random.random((*shape[:3], filters // 8, 1)) < 0.6
        kernel[
            np.broadcast_to(blocks, (*blocks.shape[:4], 8)).reshape(shape)
        ] = 0
    data_format = str(random.choice(["NHWC", "NCHW"]))
    x = random.normal(size=(batch, *size, channels)).astype(np.float32)
    if data_format == "NCHW":
        x = np.ascontiguousarray(np.moveaxis(x, 3, 1))
    bias = random.normal(size=filters).astype(np.float32)
    return Case(
        x,
        kernel,
        bias if random.random() < 0.5 else None,
        dict(
            strides=strides,
            padding=padding if isinstance(padding, tuple) else str(padding),
            dilations=dilations,
            groups=groups,
            data_format=data_format,
            activation="relu" if random.random() < 0.3 else None,
        ),
    )


def run(case: Case, **arguments):
    """By our op."""
    kernel = SparseKernel.from_dense(case.kernel)
    return sparse_conv2d(
        case.x, kernel, bias=case.bias, **case.arguments, **arguments
    )


def gradients(case: Case, **arguments):
    """Of the input, the values and the bias, for a fixed random direction."""
    kernel = SparseKernel.from_dense(case.kernel)
    bias = None if case.bias is None else tf.constant(case.bias)
    x = tf.constant(case.x)
    sources = [x, kernel.values] + ([] if bias is None else [bias])
    with tf.GradientTape() as tape:
        tape.watch(sources)
        y = sparse_conv2d(x, kernel, bias=bias, **case.arguments, **arguments)
        loss = tf.reduce_sum(y * _direction(y.shape))
    return tape.gradient(loss, sources)


def expected(case: Case):
    """The convolution in float64."""
    return _numpy(case)[0]


def expected_gradients(case: Case):
    """As `gradients`, in float64."""
    y, taps = _numpy(case)
    dy = np.array(_direction(y.shape), np.float64)
    if case.arguments["activation"] == "relu":
        dy = dy * (y > 0)
    x, kernel, first = _arrays(case)
    if first:
        dy = np.moveaxis(dy, 1, 3)
    dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for weights, reads, writes in taps:
        dx[reads] += dy[writes] @ kernel[weights].T
        dkernel[weights] = np.einsum("nhwc,nhwo->co", x[reads], dy[writes])
    (top, bottom), (left, right) = _pads(case)
    dx = dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right]
    result = [
        np.moveaxis(dx, 3, 1) if first else dx,
        dkernel.ravel()[np.flatnonzero(case.kernel)],
    ]
    return result if case.bias is None else [*result, dy.sum((0, 1, 2))]


def _numpy(case):
    """Output; indices of the weights, inputs, outputs of each tap and bank."""
    x, kernel, first = _arrays(case)
    height, width, channels, filters = kernel.shape
    groups = case.arguments["groups"]
    strides, dilations = (case.arguments[k] for k in ("strides", "dilations"))
    sizes = [
        (x.shape[axis + 1] - (kernel.shape[axis] - 1) * dilations[axis] - 1)
        // strides[axis]
        + 1
        for axis in (0, 1)
    ]
    y = np.zeros((len(x), *sizes, filters))
    taps = []
    for *tap, bank in np.ndindex(height, width, groups):
        pixels = [
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, sizes, strides, strict=True)
        ]
        inputs = slice(bank * channels, (bank + 1) * channels)
        share = filters // groups
        outputs = slice(bank * share, (bank + 1) * share)
        weights, reads = (
            (*tap, slice(None), outputs),
            (slice(None), *pixels, inputs),
        )
        writes = (..., outputs)
        y[writes] += x[reads] @ kernel[weights]
        taps.append((weights, reads, writes))
    if case.bias is not None:
        y = y + case.bias
    if case.arguments["activation"] == "relu":
        y = np.maximum(y, 0)
    return np.moveaxis(y, 3, 1) if first else y, taps


def _arrays(case):
    """Padded input in NHWC, kernel; whether channels came first."""
    first = case.arguments["data_format"] == "NCHW"
    x = np.moveaxis(case.x, 1, 3) if first else case.x
    x = np.pad(x.astype(np.float64), [(0, 0), *_pads(case), (0, 0)])
    return x, case.kernel.astype(np.float64), first


def _pads(case):
    """((top, bottom), (left, right))."""
    padding = case.arguments["padding"]
    if padding != "SAME":
        return ((0, 0), (0, 0)) if padding == "VALID" else padding
    offset = 2 if case.arguments["data_format"] == "NCHW" else 1
    pads = []
    for axis in (0, 1):
        size = case.x.shape[axis + offset]
        stride = case.arguments["strides"][axis]
        dilation = case.arguments["dilations"][axis]
        window = (case.kernel.shape[axis] - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + window - size)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def dense(x, kernel, bias, strides=1, padding="VALID", groups=1, **others):
    """By TensorFlow, bank by bank; without dilations. See above."""
    if others.get("data_format") == "NCHW":
        x = tf.transpose(x, [0, 2, 3, 1])
    if not isinstance(padding, str):
        padding = [[0, 0], *padding, [0, 0]]
    banks = zip(
        tf.split(x, groups, 3), tf.split(kernel, groups, 3), strict=True
    )
    y = tf.concat(
        [tf.nn.conv2d(part, bank, strides, padding) for part, bank in banks], 3
    )
    if bias is not None:
        y = y + bias
    if others.get("activation") == "relu":
        y = tf.nn.relu(y)
    if others.get("data_format") == "NCHW":
        y = tf.transpose(y, [0, 3, 1, 2])
    return y


def dense_gradients(case: Case):
    """As `gradients`, by `tf.GradientTape` of `dense`."""
    x, kernel = tf.constant(case.x), tf.constant(case.kernel)
    bias = None if case.bias is None else tf.constant(case.bias)
    sources = [x, kernel] + ([] if bias is None else [bias])
    with tf.GradientTape() as tape:
        tape.watch(sources)
        y = dense(x, kernel, bias, **case.arguments)
        loss = tf.reduce_sum(y * _direction(y.shape))
    dx, dkernel, *dbias = tape.gradient(loss, sources)
    positions = np.flatnonzero(case.kernel)
    return [dx, tf.gather(tf.reshape(dkernel, [-1]), positions), *dbias]


def _direction(shape):
    return tf.random.stateless_normal(shape, (1, 2))


def digest() -> str:
    """Of the results and gradients of some convolutions."""
    random = np.random.default_rng(8)
    results = []
    for batch, density in ((1, 0.1), (21, 0.2), (3, 0.9)):
        case = Case(
            random.normal(size=(batch, 14, 15, 24)).astype(np.float32),
            sparse(random, (3, 3, 24, 40), density),
            random.normal(size=40).astype(np.float32),
            dict(padding="SAME", strides=1, activation="relu"),
        )
        results.append(run(case, implementation="sparse"))
        results += gradients(case, implementation="sparse")
    return digest_of(*results)


def digest_of(*tensors) -> str:
    """Of their bits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
