"""The smaller model computes what the model with its zeros does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_ssl


def fill(model, seed=0):
    """Weights, biases, scales and statistics that are all alive."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        value = 0.3 * random.standard_normal(variable.shape)
        if "variance" in variable.path:
            value = 0.5 + np.abs(value)
        if "gamma" in variable.path:
            value += 1.0
        variable.assign(value)
    return model


def outputs(model, seed=1):
    """Of random inputs."""
    random = np.random.default_rng(seed)
    values = [
        random.standard_normal([3, *t.shape[1:]]).astype(np.float32)
        for t in model.inputs
    ]
    result = model(keras.tree.pack_sequence_as(model.input, values))
    return [x.numpy().astype(np.float64) for x in keras.tree.flatten(result)]


def assert_same(model, small):
    """Within rounding."""
    for a, b in zip(outputs(model), outputs(small), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


def conv(filters, size=3, **arguments):
    return layers.Conv2D(filters, size, padding="same", **arguments)


def test_chain_of_convolutions():
    x = inputs = keras.Input([8, 8, 3])
    x = conv(6, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(5, 3, use_bias=False, name="conv2")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("silu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(7, name="hidden")(x)
    model = fill(keras.Model(inputs, layers.Dense(2, name="logits")(x)))
    structures = tf_ssl.find_structures(model)
    assert [(s.name, s.size) for s in structures] == [
        (f"{model.inputs[0].name}/input", 3),
        ("conv1/filters", 6),
        ("conv2/filters", 5),
        ("hidden/units", 7),
    ]
    structures["conv1/filters"].zero([1, 4])
    structures["conv2/filters"].zero([0, 2, 3])
    structures["hidden/units"].zero([5])
    small = tf_ssl.shrink(model)
    assert small.get_layer("conv1").kernel.shape.as_list() == [3, 3, 3, 4]
    assert small.get_layer("conv2").kernel.shape.as_list() == [3, 3, 4, 2]
    assert small.get_layer("hidden").kernel.shape.as_list() == [8, 6]
    assert_same(model, small)


def zero_outgoing(structure, units):
    for part in structure.of(["in"]):
        part.zero(units)


def zero_kernels(structure, units):
    """What makes the units; biases and shifts live on."""
    for part in structure.of(["out"]):
        if len(part.variable.shape) > 1:
            part.zero(units)


MODES = {
    "all": lambda structure, units: structure.zero(units),
    "kernels": zero_kernels,
    "outgoing": zero_outgoing,
}


def residual():
    x = inputs = keras.Input([8, 8, 3])
    x = trunk = conv(6, name="stem")(x)
    for i in range(2):
        y = layers.BatchNormalization()(x)
        y = layers.ReLU()(y)
        y = conv(4, name=f"a{i}")(y)
        y = layers.BatchNormalization()(y)
        y = conv(6, name=f"b{i}")(y)
        x = layers.Add(name=f"add{i}")([x, y])
    x = layers.Concatenate()([x, trunk])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def squeeze_and_excite():
    x = inputs = keras.Input([8, 8, 3])
    x = conv(6, activation="silu", name="expand")(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Reshape([1, 1, 6])(s)
    s = conv(3, 1, activation="silu", name="squeeze")(s)
    s = conv(6, 1, activation="sigmoid", name="excite")(s)
    x = layers.Multiply()([x, s])
    x = conv(5, 1, name="project")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def separable_and_transposed():
    x = inputs = keras.Input([8, 8, 3])
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, name="separable")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, name="up")(x)
    x = layers.LeakyReLU()(x)
    x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(4, 3, name="last")(x)
    return keras.Model(inputs, layers.GlobalMaxPooling2D()(x))


def grouped():
    x = inputs = keras.Input([6, 6, 4])
    x = conv(8, name="a")(x)
    x = conv(12, groups=4, name="b")(x)
    x = layers.ReLU()(x)
    x = conv(6, groups=2, name="c")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def sequence():
    x = inputs = keras.Input([7, 4])
    x = layers.Conv1D(6, 3, padding="causal", name="a")(x)
    x = layers.Permute([2, 1])(x)
    x = layers.Permute([2, 1])(x)
    x = layers.RMSNormalization()(x)
    y = layers.MultiHeadAttention(3, 2, name="attention")(x, x)
    x = layers.Add()([x, y])
    x = layers.Dense(5, activation="gelu", name="b")(x)
    x = x * 2.0 + 1.0
    x = keras.ops.relu(x)
    x = keras.ops.mean(x, axis=1)
    return keras.Model(inputs, layers.Dense(2)(x))


MODELS = {
    f.__name__: f
    for f in (
        residual,
        squeeze_and_excite,
        separable_and_transposed,
        grouped,
        sequence,
    )
}


def plant_and_shrink(model, mode, count):
    """Zeroes `count(structure, i)` units, i being the structure's number.

    Asserts that the shrunk model computes the same; returns, by structure, how
    many units were zeroed and how many went.
    """
    random = np.random.default_rng(3)
    planted = {}
    for structure in tf_ssl.find_structures(model):
        if structure.kind != "input":
            units = random.permutation(structure.size)
            units = units[: count(structure, len(planted))]
            MODES[mode](structure, units)
            planted[structure.name] = len(units)
    small = tf_ssl.shrink(model)
    assert_same(model, small)
    removed = {
        name: before - after
        for name, (before, after) in small.shrink_report.units.items()
    }
    return planted, removed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_same_outputs(name, mode):
    planted, removed = plant_and_shrink(
        fill(MODELS[name]()), mode, lambda structure, i: structure.size // 2
    )
    # A mean over all units reads them, too; groups must lose equally many.
    exceptions = [("sequence", "outgoing"), ("grouped", mode)]
    if mode != "kernels" and (name, mode) not in exceptions:
        assert {n: removed[n] for n in planted} == planted


def test_constants_of_units_are_folded():
    x = inputs = keras.Input([4])
    x = layers.Dense(5, activation="sigmoid", name="a")(x)
    x = layers.Dense(3, use_bias=False, name="b")(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    zero_kernels(tf_ssl.find_structures(model)["a/units"], [0, 3])
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").units == 3
    assert small.get_layer("b").use_bias
    assert small.shrink_report.folded == ["b"]
    assert_same(model, small)


def test_constants_that_meet_padding_stay():
    x = inputs = keras.Input([6, 6, 2])
    x = conv(5, name="a")(x)
    model = fill(keras.Model(inputs, conv(3)(x)))
    zero_kernels(tf_ssl.find_structures(model)["a/filters"], [0, 3])
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").filters == 5
    assert small.shrink_report.kept == [
        (
            "a/filters",
            2,
            "their constants are not 0 and meet padding; allow_inexact=True "
            "removes them",
        )
    ]
    assert tf_ssl.shrink(model, allow_inexact=True).get_layer("a").filters == 3


def test_residual_branch_goes():
    model = fill(residual())
    blocks = tf_ssl.find_blocks(model)
    assert [b.name for b in blocks] == ["a0/block", "a1/block"]
    assert not blocks["a0/block"].dead()
    blocks["a0/block"].zero([0])
    assert blocks["a0/block"].dead()
    small = tf_ssl.shrink(model)
    names = [layer.name for layer in small.layers]
    assert "a0" not in names and "add0" not in names and "a1" in names
    assert small.shrink_report.dropped == ["add0"]
    assert_same(model, small)


def test_residual_branch_leaves_a_constant():
    model = fill(residual())
    # Of the second branch only the bias of its last convolution lives on.
    model.get_layer("b1").kernel.assign(np.zeros([3, 3, 4, 6]))
    small = tf_ssl.shrink(model)
    assert isinstance(small.get_layer("add1"), layers.Rescaling)
    assert_same(model, small)


def test_nested_and_shared_models():
    shared = layers.Dense(6, activation="relu", name="shared")
    x = inner_inputs = keras.Input([6])
    x = shared(x)
    x = layers.Dense(5, name="inner")(x)
    inner = keras.Model(inner_inputs, [x, shared(inner_inputs)], name="nested")
    first, second = (
        keras.Input([4], name="first"),
        keras.Input([3], name="second"),
    )
    a = layers.Dense(6, name="a")(first)
    b = layers.Dense(6, name="b")(second)
    (y, z), (v, w) = inner(a), inner(b)
    y = layers.Concatenate()([y, z, v, w])
    model = fill(
        keras.Model(
            {"first": first, "second": second},
            {
                "one": layers.Dense(2, name="one")(y),
                "two": layers.Dense(1, name="two")(z),
            },
        )
    )
    structures = tf_ssl.find_structures(model)
    # a and b are read by one layer.
    assert structures["b/units"].size == 6
    structures["b/units"].zero([2, 3])
    structures["shared/units"].zero([0])
    structures["inner/units"].zero([1, 4])
    small = tf_ssl.shrink(model)
    assert small.get_layer("nested").get_layer("inner").units == 3
    assert small.get_layer("nested").get_layer(
        "shared"
    ).kernel.shape.as_list() == [4, 5]
    assert small.get_layer("b").units == 4
    assert sorted(small.output) == ["one", "two"]
    assert_same(model, small)


def test_sequential_of_open_size():
    model = fill(
        keras.Sequential(
            [
                keras.Input([None, None, 2]),
                layers.Conv2D(5, 3, name="a"),
                layers.MaxPooling2D(4),
                layers.Conv2D(3, 2, name="b"),
                layers.GlobalAveragePooling2D(),
            ]
        )
    )
    tf_ssl.find_structures(model)["a/filters"].zero([0, 3])
    small = tf_ssl.shrink(model)
    assert isinstance(small, keras.Sequential)
    assert small.layers[0].filters == 3
    x = np.random.default_rng(0).standard_normal([2, 20, 17, 2])
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="took no random input of the sizes"):
        tf_ssl.shrink(
            keras.Sequential(
                [keras.Input([None, 2]), layers.Cropping1D([300, 0])]
            )
        )


def test_inputs_are_gathered_on_request():
    x = inputs = keras.Input([6], name="pixels")
    x = layers.Dense(4, name="a")(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    structure = tf_ssl.find_structures(model)["pixels/input"]
    assert structure.kind == "input"
    structure.zero([0, 5])
    np.testing.assert_array_equal(
        structure.dead(), [True, False, False, False, False, True]
    )
    assert tf_ssl.shrink(model).get_layer("a").kernel.shape.as_list() == [6, 4]
    small = tf_ssl.shrink(model, gather_inputs=True)
    assert small.get_layer("a").kernel.shape.as_list() == [4, 4]
    assert_same(model, small)


def test_kernels_lose_dead_borders():
    x = inputs = keras.Input([9, 9, 2])
    x = conv(4, 5, name="a")(x)
    x = layers.DepthwiseConv2D([3, 4], padding="same", name="b")(x)
    x = conv(3, 3, strides=2, name="c")(x)
    model = fill(keras.Model(inputs, x))
    live = {"a": np.s_[1:4, :], "b": np.s_[1:2, 1:3], "c": np.s_[1:2, 1:2]}
    for name, taps in live.items():
        kernel = model.get_layer(name).kernel
        value = np.zeros(kernel.shape)
        value[taps] = kernel.numpy()[taps]
        kernel.assign(value)
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").kernel_size == (3, 5)
    assert small.get_layer("b").kernel_size == (1, 2)
    assert small.get_layer("c").kernel_size == (3, 3)
    assert_same(model, small)


def test_last_unit_stays():
    x = inputs = keras.Input([6])
    x = layers.Dense(4, name="a")(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    tf_ssl.find_structures(model)["a/units"].zero(range(4))
    small = tf_ssl.shrink(model)
    assert small.get_layer("a").units == 1
    assert small.shrink_report.kept == [("a/units", 1, "at least 1 must stay")]
    assert tf_ssl.shrink(model, min_units=3).get_layer("a").units == 3
    assert tf_ssl.shrink(model, round_to=2).get_layer("a").units == 2
    assert_same(model, small)


def test_threshold_zeroes_small_units():
    x = inputs = keras.Input([6])
    x = layers.Dense(4, name="a")(x)
    model = fill(keras.Model(inputs, layers.Dense(2)(x)))
    kernel = model.get_layer("a").kernel.numpy()
    kernel[:, 1] *= 1e-6
    model.get_layer("a").kernel.assign(kernel)
    assert tf_ssl.shrink(model).get_layer("a").units == 4
    small = tf_ssl.shrink(model, threshold=1e-4)
    assert small.get_layer("a").units == 3
    assert small.shrink_report.difference < 1e-5
    np.testing.assert_array_equal(model.get_layer("a").kernel.numpy(), kernel)


def test_plan_only_counts():
    model = fill(residual())
    structures = tf_ssl.find_structures(model)
    structures["a0/filters"].zero([0, 1])
    report = tf_ssl.shrink(model, plan_only=True)
    small = tf_ssl.shrink(model)
    assert report.units == small.shrink_report.units
    assert report.parameters == (model.count_params(), small.count_params())
    assert "a0/filters: 4 -> 2 units" in str(report)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(0.1, 0.9), keras.optimizers.Adam()]
)
def test_optimizer_goes_on(optimizer):
    x = inputs = keras.Input([6])
    x = layers.Dense(4, name="a")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    structure = tf_ssl.find_structures(model)["a/units"]
    model.compile(optimizer, "mse")
    x, y = (
        np.random.default_rng(0).standard_normal([2, 16, 6]).astype("float32")
    )
    model.fit(x, y[:, :2], verbose=0)
    structure.zero([0, 2])
    small = tf_ssl.shrink(model, optimizer=optimizer)
    new = small.shrink_report.optimizer
    assert int(new.iterations) == int(optimizer.iterations) == 1
    old_slots = {v.path: v.numpy() for v in optimizer.variables}
    slots = {v.path: v.numpy() for v in new.variables}
    assert len(slots) == len(old_slots)
    for path, value in old_slots.items():
        if "a_kernel" in path:
            np.testing.assert_array_equal(slots[path], value[:, [1, 3]])
    small.compile(new, "mse")
    small.fit(x, y[:, :2], verbose=0)


def test_unknown_layer_is_named():
    @keras.saving.register_keras_serializable(package="test")
    class Strange(layers.Layer):
        def call(self, x):
            return tf.reverse(x, [-1])

    x = inputs = keras.Input([6])
    x = layers.Dense(4, name="a")(x)
    x = Strange(name="strange")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    reasons = dict(tf_ssl.find_structures(model).skipped)
    assert reasons["a"].startswith(
        "the layer strange (Strange) has no rule and does not open: "
    )
    assert reasons["a"].endswith(
        "; ten lines make one: @tf_ssl.structure_rule(Strange), see "
        "docs/architecture.md"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"threshold": -1.0},
            "Invalid value for argument threshold. Expected a finite number >= "
            "0. Received: threshold=-1.0",
        ),
        (
            {"min_units": 0},
            "Invalid value for argument min_units. Expected an integer >= 1. "
            "Received: min_units=0",
        ),
        (
            {"round_to": 1.5},
            "Invalid value for argument round_to. Expected an integer >= 1. "
            "Received: round_to=1.5",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        tf_ssl.shrink(residual(), **arguments)
    assert str(error.value) == message


def test_bad_models():
    model = residual()
    model.get_layer("a0").bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(ValueError, match="a0/bias has NaN or infinite ones"):
        tf_ssl.shrink(model)
    with pytest.raises(ValueError, match="Build it first: give it an Input"):
        tf_ssl.shrink(keras.Sequential([layers.Dense(1)]))

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="build the same layers with the"):
        tf_ssl.find_structures(Own())
