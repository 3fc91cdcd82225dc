"""The sparse convolution against NumPy and TensorFlow's dense one."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import custom_ops
from custom_ops import SparseKernel, library, sparse_conv2d
from tests.custom_ops import sparse_conv_reference as reference

KERNELS = (custom_ops.status()["sparse_conv"] or {}).get("kernels", ["scalar"])


def close(actual, expected, tolerance=1e-5, context=""):
    """Within rounding, relative to the largest of a tensor."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, context
    largest = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(
        actual,
        expected,
        rtol=tolerance,
        atol=tolerance * largest + 1e-30,
        err_msg=str(context),
    )


def draw(random, implementation, name):
    """Only sizes that TensorFlow computes right, where it computes."""
    dense = implementation == "fallback" or name in ("", "dense")
    return reference.draw(random, least_channels=2 if dense else 1)


@pytest.mark.parametrize("seed", range(30))
def test_random_configurations(implementation, seed):
    random = np.random.default_rng(seed)
    for number in range(100 if implementation == "c++" else 20):
        names = ("", "sparse", "dense", *KERNELS)
        name = names[number % len(names)]
        case = draw(random, implementation, name)
        actual = reference.run(case, implementation=name)
        close(actual, reference.expected(case), context=(name, case.arguments))


@pytest.mark.parametrize("seed", range(10))
def test_random_gradients(implementation, seed):
    random = np.random.default_rng(1000 + seed)
    plain = implementation == "fallback"  # its gradients are TensorFlow's
    for number in range(6 if plain else 24):
        names = ("sparse", "dense", *KERNELS)
        name = names[number % len(names)]
        case = reference.draw(random, 2, plain)
        for actual, expected in zip(
            reference.gradients(case, implementation=name),
            reference.expected_gradients(case),
            strict=True,
        ):
            close(actual, expected, 2e-5, (name, case.arguments))


@pytest.mark.parametrize("name", ["sparse", "dense", *KERNELS])
def test_gradients_are_those_of_a_tape_at_the_non_zeros(compiled, name):
    random = np.random.default_rng(9)
    for taps, stride, padding, groups in (
        (3, 1, "SAME", 1),
        (3, 2, "VALID", 1),
        (5, 1, "VALID", 2),
        (1, 1, "SAME", 1),
    ):
        case = reference.Case(
            random.normal(size=(3, 9, 10, 4)).astype(np.float32),
            reference.sparse(random, (taps, taps, 4 // groups, 8), 0.4),
            random.normal(size=8).astype(np.float32),
            dict(strides=stride, padding=padding, groups=groups),
        )
        for actual, expected in zip(
            reference.gradients(case, implementation=name),
            reference.dense_gradients(case),
            strict=True,
        ):
            close(actual, expected, 2e-5)


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_second_order(implementation, name):
    random = np.random.default_rng(0)
    case = reference.Case(
        x=random.normal(size=(2, 5, 6, 4)).astype(np.float32),
        kernel=reference.sparse(random, (3, 2, 2, 6), 0.5),
        bias=random.normal(size=6).astype(np.float32),
        arguments=dict(strides=(2, 1), padding="SAME", groups=2),
    )

    def second(convolve, x, weights, bias):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([x, weights, bias])
            with tf.GradientTape() as inner:
                inner.watch([x, weights, bias])
                loss = tf.reduce_sum(tf.sin(convolve(x, weights, bias)))
            first = inner.gradient(loss, [x, weights, bias])
            total = tf.add_n([tf.reduce_sum(g**2) for g in first])
        return outer.gradient(total, [x, weights, bias])

    kernel = SparseKernel.from_dense(case.kernel)
    positions = kernel.positions.numpy()

    def ours(x, values, bias):
        own = SparseKernel(positions, values, kernel.shape)
        return sparse_conv2d(
            x, own, bias=bias, implementation=name, **case.arguments
        )

    def dense(x, values, bias):
        full = SparseKernel(positions, values, kernel.shape).to_dense()
        return reference.dense(x, full, bias, **case.arguments)

    arguments = [tf.constant(case.x), kernel.values, tf.constant(case.bias)]
    for actual, expected in zip(
        second(ours, *arguments), second(dense, *arguments), strict=True
    ):
        close(actual, expected, 5e-5)


def test_relu_and_its_gradient(implementation):
    x = tf.constant([[[[-1.0], [2.0]]]])
    kernel = SparseKernel.from_dense([[[[1.0, -1.0]]]])
    bias = tf.constant([0.5, 0.5])
    with tf.GradientTape() as tape:
        tape.watch([x, kernel.values, bias])
        y = sparse_conv2d(
            x, kernel, bias=bias, activation="relu", implementation="sparse"
        )
    assert y.numpy().tolist() == [[[[0.0, 1.5], [2.5, 0.0]]]]
    gradients = tape.gradient(y, [x, kernel.values, bias])
    assert [g.numpy().ravel().tolist() for g in gradients] == [
        [-1.0, 1.0],
        [2.0, -1.0],
        [1.0, 1.0],
    ]


def test_bfloat16_is_storage(implementation):
    random = np.random.default_rng(3)
    x = tf.constant(random.normal(size=(3, 9, 7, 6)).astype(np.float32))
    dense = reference.sparse(random, (3, 3, 6, 10), 0.3)
    rounded = tf.cast(tf.cast(dense, tf.bfloat16), tf.float32)
    kernel = SparseKernel.from_dense(dense, tf.bfloat16)
    for name in ("sparse", "dense"):
        with tf.GradientTape() as tape:
            tape.watch(kernel.values)
            y = sparse_conv2d(x, kernel, implementation=name)
        close(y, tf.nn.conv2d(x, rounded, 1, "VALID"))
        assert tape.gradient(y, kernel.values).dtype == tf.bfloat16


@pytest.mark.parametrize(
    "shape", [(None, 8, 9, 6), (None, None, None, 6), (None,) * 4, None]
)
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_unknown_sizes_in_a_function(implementation, shape, data_format):
    random = np.random.default_rng(4)
    dense = reference.sparse(random, (3, 3, 6, 10), 0.3)
    kernel = SparseKernel.from_dense(dense)
    if data_format == "NCHW" and shape is not None:
        shape = (shape[0], shape[3], shape[1], shape[2])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def convolve(x):
        y = sparse_conv2d(
            x,
            kernel,
            2,
            "SAME",
            data_format=data_format,
            implementation="sparse",
        )
        filters = y.shape[1 if data_format == "NCHW" else 3]
        assert filters == 10
        return y

    # Of an empty batch oneDNN gives the input's shape.
    for batch in (1, 5, 0) if implementation == "c++" else (1, 5):
        size = (batch, 8, 9, 6)
        if data_format == "NCHW":
            size = (batch, 6, 8, 9)
        x = random.normal(size=size).astype(np.float32)
        arguments = dict(
            strides=(2, 2),
            padding="SAME",
            dilations=(1, 1),
            groups=1,
            data_format=data_format,
            activation=None,
        )
        case = reference.Case(x, dense, None, arguments)
        close(convolve(x), reference.expected(case))


def test_new_values_and_new_positions_are_seen(compiled):
    random = np.random.default_rng(5)
    values = tf.Variable(tf.ones([4]))
    positions = tf.Variable(tf.range(4))
    x = tf.constant(random.normal(size=(2, 6, 6, 2)).astype(np.float32))

    @tf.function
    def convolve():
        kernel = SparseKernel(positions, values, (2, 2, 2, 3))
        return sparse_conv2d(x, kernel, implementation="sparse")

    for _ in range(3):
        flat = np.zeros(24, np.float32)
        flat[positions.numpy()] = values.numpy()
        dense = flat.reshape(2, 2, 2, 3)
        for _ in range(2):
            close(convolve(), tf.nn.conv2d(x, dense, 1, "VALID"))
        values.assign_add(random.normal(size=4).astype(np.float32))
        positions.assign(np.sort(random.permutation(24)[:4]).astype(np.int32))


def test_training_steps_are_those_of_a_masked_dense_kernel(compiled):
    random = np.random.default_rng(6)
    dense = reference.sparse(random, (3, 3, 4, 8), 0.4)
    mask = tf.constant((dense != 0).astype(np.float32))
    start = SparseKernel.from_dense(dense)
    values, full = tf.Variable(start.values), tf.Variable(dense)
    x = tf.constant(random.normal(size=(4, 7, 7, 4)).astype(np.float32))

    @tf.function
    def sparse_step():
        with tf.GradientTape() as tape:
            kernel = SparseKernel(start.positions, values, start.shape)
            y = sparse_conv2d(x, kernel, implementation="sparse")
            loss = tf.reduce_mean((y - 1.0) ** 2)
        values.assign_sub(0.1 * tape.gradient(loss, values))

    @tf.function
    def dense_step():
        with tf.GradientTape() as tape:
            y = tf.nn.conv2d(x, full, 1, "VALID")
            loss = tf.reduce_mean((y - 1.0) ** 2)
        full.assign_sub(0.1 * mask * tape.gradient(loss, full))

    for _ in range(10):
        sparse_step()
        dense_step()
    moved = full.numpy().ravel()[start.positions.numpy()]
    assert np.abs(moved - start.values).max() > 0.01
    close(values, moved, 1e-4)


def test_under_xla_it_is_the_dense_convolution(compiled):
    random = np.random.default_rng(7)
    dense = reference.sparse(random, (3, 3, 4, 6), 0.3)
    kernel = SparseKernel.from_dense(dense)
    x = tf.constant(random.normal(size=(2, 7, 7, 4)).astype(np.float32))
    convolve = tf.function(
        lambda x: sparse_conv2d(
            x, kernel, 1, "SAME", dilations=2, implementation="sparse"
        ),
        jit_compile=True,
    )
    expected = tf.nn.conv2d(x, dense, 1, "SAME", dilations=2)
    close(convolve(x), expected)


def test_inputs_meet_weights_at_positions_only(compiled):
    x = np.ones([1, 1, 4, 2], np.float32)
    x[0, 0, 2, 1] = np.nan
    kernel = SparseKernel.from_dense([[[[1.0], [0.0]]]])
    for name in ("sparse", *KERNELS):
        y = sparse_conv2d(x, kernel, implementation=name)
        assert y.numpy().ravel().tolist() == [1.0] * 4, name


def test_nan_is_a_weight(implementation):
    kernel = SparseKernel.from_dense([[[[np.nan, 0.0, 2.0]]]])
    assert kernel.num_nonzeros == 2
    y = sparse_conv2d(tf.ones([1, 1, 1, 1]), kernel, implementation="sparse")
    np.testing.assert_array_equal(y.numpy().ravel(), [np.nan, 0.0, 2.0])


@pytest.mark.parametrize("bias", [None, [1.0, -1.0]])
def test_kernel_of_zeros(implementation, bias):
    kernel = SparseKernel.from_dense(np.zeros((3, 3, 2, 2)))
    x = tf.ones([2, 4, 4, 2])
    with tf.GradientTape() as tape:
        tape.watch([x, kernel.values])
        y = sparse_conv2d(x, kernel, bias=bias, implementation="sparse")
    assert (y.numpy() == np.broadcast_to(bias or 0.0, (2, 2, 2, 2))).all()
    dx, dvalues = tape.gradient(y, [x, kernel.values])
    assert dx.shape == x.shape and not dx.numpy().any()
    assert dvalues.shape == (0,)


@pytest.mark.parametrize("name", ["", "sparse"])
@pytest.mark.parametrize("shape", [(0, 5, 5, 2), (2, 5, 0, 2), (0, 0, 0, 2)])
def test_empty_inputs(compiled, shape, name):
    case = reference.Case(
        np.zeros(shape, np.float32),
        np.ones((3, 3, 2, 4), np.float32),
        np.array([1.0, -1.0, 2.0, 0.0], np.float32),
        dict(
            strides=(1, 1),
            padding=((1, 2), (1, 3)),
            dilations=(1, 1),
            groups=1,
            data_format="NHWC",
            activation="relu",
        ),
    )
    close(reference.run(case, implementation=name), reference.expected(case))
    for actual, expected in zip(
        reference.gradients(case, implementation=name),
        reference.expected_gradients(case),
        strict=True,
    ):
        close(actual, expected)


def test_input_smaller_than_the_kernel(compiled):
    kernel = SparseKernel.from_dense(np.ones((3, 3, 1, 2)))
    assert sparse_conv2d(tf.ones([2, 2, 5, 1]), kernel).shape == (2, 0, 3, 2)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"Computed output size would be negative: -1 \[input size 1, "
        r"pads 0 and 0, effective filter size 3, stride 1\]",
    ):
        sparse_conv2d(tf.ones([2, 1, 5, 1]), kernel)
    y = sparse_conv2d(tf.ones([1, 1, 1, 1]), kernel, padding="SAME")
    assert y.numpy().ravel().tolist() == [1.0, 1.0]


KERNEL = np.ones((3, 3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        (
            (2, 5, 5, 3),
            {},
            "The input [2,5,5,3] in the format NHWC has 3 channels, the kernel "
            "[3,3,2,4] with 1 groups reads 2.",
        ),
        (
            (2, 5, 5, 4),
            {"groups": 2, "data_format": "NCHW"},
            "The input [2,5,5,4] in the format NCHW has 5 channels, the kernel "
            "[3,3,2,4] with 2 groups reads 4.",
        ),
        (
            (2, 5, 5, 6),
            {"groups": 3},
            "The 4 filters of the kernel [3,3,2,4] do not divide into 3 "
            "groups.",
        ),
        ((5, 5, 2), {}, "Expected an input of four axes. Received: [5,5,2]."),
    ],
)
def test_shapes_that_do_not_fit(implementation, shape, arguments, message):
    kernel = SparseKernel.from_dense(KERNEL)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        sparse_conv2d(
            tf.ones(shape), kernel, implementation="sparse", **arguments
        )
    assert message in str(error.value)
    if implementation == "c++" and len(shape) == 4:
        with pytest.raises(ValueError) as error:
            tf.function(
                lambda x: sparse_conv2d(
                    x, kernel, implementation="sparse", **arguments
                )
            )(tf.ones(shape))
        assert message in str(error.value)


def test_what_the_op_says_of_other_inputs(compiled):
    kernel = SparseKernel.from_dense(KERNEL)

    def message(kernel=kernel, **arguments):
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            sparse_conv2d(
                tf.ones([1, 5, 5, 2]),
                kernel,
                **{"implementation": "sparse", **arguments},
            )
        return str(error.value)

    assert (
        "Expected a bias of shape [4] for the kernel [3,3,2,4]. Received: [3]."
        in message(bias=[1.0, 2.0, 3.0])
    )
    assert (
        "Expected the name of a kernel that runs here. Received: "
        "kernel='fastest'" in message(implementation="fastest")
    )
    for positions in ([0, 0], [1, 0], [0, 72], [-1, 0]):
        wrong = SparseKernel(tf.constant(positions), [1.0, 2.0], kernel.shape)
        assert "Expected ascending integers in [0, 72)." in message(wrong)
    assert (
        "Invalid value for argument `strides`. Expected 2 integers in [1, "
        "2^31). Received: [4294967296,1]." in message(strides=(2**32, 1))
    )
    large = ((2**20, 2**20), (2**20, 2**20))
    assert (
        "Expected less than 2^31 elements in the padded input. Received: 2^31 "
        "or more" in message(padding=large)
    )
    huge = ((2**31 - 1, 2**31 - 1), (2**31 - 1, 2**31 - 1))
    assert "overflow" in message(padding=huge)


def test_gradients_of_another_shape_are_refused(compiled):
    kernel = SparseKernel.from_dense(KERNEL)
    ops = library.ops()
    attributes = dict(
        positions=kernel.positions,
        grad_output=tf.ones([1, 3, 2, 4]),
        kernel_shape=kernel.shape,
        padding="VALID",
    )
    message = (
        "Expected a gradient of the output's shape [1,3,3,4]. Received: "
        "[1,3,2,4]."
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        ops.tern_grad_ssl_import_custom_ops_sparse_conv2d_grad_input(
            input_shape=[1, 5, 5, 2], values=kernel.values, **attributes
        )
    assert message in str(error.value)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        ops.tern_grad_ssl_import_custom_ops_sparse_conv2d_grad_values(
            input=tf.ones([1, 5, 5, 2]), **attributes
        )
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"activation": "tanh"},
            "Invalid value for argument activation. Expected None or 'relu'. "
            "Received: activation='tanh'",
        ),
        (
            {"data_format": "CHWN"},
            "Invalid value for argument data_format. Expected one of {'NHWC', "
            "'NCHW'}. Received: data_format='CHWN'",
        ),
        (
            {"groups": 0},
            "Invalid value for argument groups. Expected an integer >= 1. "
            "Received: groups=0",
        ),
        (
            {"strides": (1, 0)},
            "Invalid value for argument strides. Expected an integer >= 1, or "
            "two. Received: strides=(1, 0)",
        ),
        (
            {"dilations": 1.5},
            "Invalid value for argument dilations. Expected an integer >= 1, "
            "or two. Received: dilations=1.5",
        ),
        (
            {"padding": ((1, 1), (-1, 0))},
            "Invalid value for argument padding. Expected 'SAME', 'VALID' or "
            "((top, bottom), (left, right)), integers >= 0. Received: "
            "padding=((1, 1), (-1, 0))",
        ),
    ],
)
def test_invalid_arguments(arguments, message):
    kernel = SparseKernel.from_dense(KERNEL)
    with pytest.raises(ValueError) as error:
        sparse_conv2d(tf.ones([1, 5, 5, 2]), kernel, **arguments)
    assert str(error.value) == message


def test_an_array_is_no_kernel():
    with pytest.raises(TypeError) as error:
        sparse_conv2d(tf.ones([1, 5, 5, 2]), KERNEL)
    assert str(error.value) == (
        "Invalid type for argument kernel. Expected a SparseKernel: "
        "SparseKernel.from_dense(kernel). Received: <class 'numpy.ndarray'>"
    )


@pytest.mark.slow
def test_results_do_not_depend_on_threads(compiled):
    """Here as many as TensorFlow takes; one and three in other processes."""
    digests = [reference.digest()]
    for threads in (1, 3):
        script = (
            "import tensorflow as tf\n"
            "tf.config.threading.set_intra_op_parallelism_threads("
            f"{threads})\n"
            "from tests.custom_ops import sparse_conv_reference\n"
            "print(sparse_conv_reference.digest())\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(run.stdout.strip())
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_saved_model_says_what_to_import(compiled, tmp_path):
    module = tf.Module()
    kernel = SparseKernel.from_dense(KERNEL)
    module.convolve = tf.function(
        lambda x: sparse_conv2d(x, kernel, implementation="sparse"),
        input_signature=[tf.TensorSpec([None, 5, 5, 2])],
    )
    tf.saved_model.save(module, tmp_path / "model")
    x = tf.random.stateless_normal([2, 5, 5, 2], (0, 0))
    digest = reference.digest_of(module.convolve(x))
    load = (
        "import tensorflow as tf\n"
        f"model = tf.saved_model.load({str(tmp_path / 'model')!r})\n"
        "from tests.custom_ops.sparse_conv_reference import digest_of\n"
        "x = tf.random.stateless_normal([2, 5, 5, 2], (0, 0))\n"
        "print(digest_of(model.convolve(x)))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", before + load],
            capture_output=True,
            text=True,
        )
        for before in ("", "import custom_ops\n")
    ]
    assert runs[0].returncode != 0
    assert (
        "Op type not registered 'TernGradSSL>ImportCustomOps>SparseConv2D'"
        in (runs[0].stderr)
    )
    assert runs[1].stdout.strip() == digest
