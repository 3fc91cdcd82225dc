"""The GPU kernels of the sparse convolution's ops.

What they compute is tested without a GPU by `sparse_conv_cuda_host_test`.
"""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

import custom_ops
from custom_ops import library

OPS = ("SparseConv2D", "SparseConv2DGradInput", "SparseConv2DGradValues")


def built_with_cuda() -> bool:
    info = pathlib.Path(custom_ops.__file__).with_name("build_info.json")
    return (
        library.ops() is not None
        and info.exists()
        and json.loads(info.read_text())["cuda"] is not None
    )


@pytest.mark.skipif(not built_with_cuda(), reason="built without CUDA")
@pytest.mark.parametrize("name", OPS)
def test_registered_on_gpu(name):
    found = kernels.get_registered_kernels_for_op(
        f"TernGradSSL>ImportCustomOps>{name}"
    ).kernel
    assert sorted(kernel.device_type for kernel in found) == ["CPU", "GPU"]
    (gpu,) = [kernel for kernel in found if kernel.device_type == "GPU"]
    assert "positions" in gpu.host_memory_arg


@pytest.mark.gpu
@pytest.mark.skipif(
    not tf.config.list_physical_devices("GPU") or not built_with_cuda(),
    reason="no GPU, or built without CUDA",
)
@pytest.mark.parametrize("implementation", ["direct", "tf32", "bf16"])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_equals_cpu(implementation, data_format):
    rng = np.random.default_rng(1)
    dense = rng.normal(size=(3, 3, 12, 70)).astype(np.float32)
    dense[rng.random(dense.shape) >= 0.2] = 0.0
    kernel = custom_ops.SparseKernel.from_dense(dense)
    shape = (3, 14, 11, 24) if data_format == "NHWC" else (3, 24, 14, 11)
    x = tf.constant(rng.normal(size=shape), tf.float32)
    bias = tf.constant(rng.normal(size=70), tf.float32)
    shape = (3, 7, 11, 70) if data_format == "NHWC" else (3, 70, 7, 11)
    grad = tf.constant(rng.normal(size=shape), tf.float32)

    def run(device, implementation):
        with tf.device(device), tf.GradientTape() as tape:
            tape.watch([x, kernel.values, bias])
            y = custom_ops.sparse_conv2d(
                x,
                kernel,
                strides=(2, 1),
                padding="SAME",
                groups=2,
                data_format=data_format,
                bias=bias,
                implementation=implementation,
            )
            loss = tf.reduce_sum(y * grad)
        return [y, *tape.gradient(loss, [x, kernel.values, bias])]

    tolerance = {"direct": 1e-5, "tf32": 3e-3, "bf16": 3e-2}[implementation]
    expected = run("CPU:0", "sparse")
    found = run("GPU:0", implementation)
    for actual, reference in zip(found, expected, strict=True):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(actual, reference, atol=tolerance * scale)
