"""Penalty and sub-gradient against NumPy in float64; configs; errors."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.structures import group_reference as reference
from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.structures import groups

CASES = [
    (spec, *kernel)
    for kernel in reference.KERNELS
    for spec in groups.GROUPS
    if spec != "kernel2d" or kernel[0] in reference.SPATIAL
]


def _value_and_gradient(regularizer, kernel):
    kernel = tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        penalty = regularizer(kernel)
    return penalty.numpy(), tape.gradient(penalty, kernel).numpy()


@pytest.mark.parametrize("spec, kind, shape, conv_groups", CASES)
def test_penalty_and_gradient(spec, kind, shape, conv_groups):
    kernel = reference.kernel(shape).astype(np.float64)
    part = groups.partition(spec, shape, kind, conv_groups)
    if part.num_groups > 1:  # the first group is zero
        number = np.arange(part.num_groups).reshape(part.norms(kernel).shape)
        kernel[part.spread(number) == 0] = 0.0
    norms, spread, _ = reference.norms(kernel, spec, kind, conv_groups)
    regularizer = GroupLasso(0.3, spec, "none", kind, conv_groups=conv_groups)

    penalty, gradient = _value_and_gradient(regularizer, kernel)

    np.testing.assert_allclose(penalty, 0.3 * sum(norms.values()), rtol=1e-12)
    dead = spread == 0
    assert dead.any() == (part.num_groups > 1)
    np.testing.assert_array_equal(gradient[dead], 0.0)
    np.testing.assert_allclose(
        gradient[~dead], 0.3 * kernel[~dead] / spread[~dead], rtol=1e-12
    )


@pytest.mark.parametrize("spec", [("axis", (1, 2)), ("block", (3, 4))])
@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_axis_and_block(spec, kind):
    kernel = reference.kernel((2, 2, 3, 12) if kind == "conv" else (2, 2, 3, 4))
    norms, spread, _ = reference.norms(kernel, spec, kind, 1)
    regularizer = GroupLasso(2.0, kind=kind, **{spec[0]: spec[1]})

    penalty, gradient = _value_and_gradient(regularizer, kernel)

    np.testing.assert_allclose(penalty, 2.0 * sum(norms.values()), rtol=1e-5)
    np.testing.assert_allclose(gradient, 2.0 * kernel / spread, rtol=1e-5)


@pytest.mark.parametrize("scale", ["none", "sqrt", "inv_sqrt"])
def test_scale(scale):
    kernel = reference.kernel((5, 5, 2, 3))
    norms, spread, sizes = reference.norms(kernel, "filter", "conv", 1)
    assert set(sizes.values()) == {50}
    factor = {"none": 1.0, "sqrt": 50**0.5, "inv_sqrt": 50**-0.5}[scale]

    penalty, gradient = _value_and_gradient(
        GroupLasso(0.1, "filter", scale), kernel
    )

    expected = 0.1 * factor * sum(norms.values())
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)
    expected = 0.1 * factor * kernel / spread
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_penalties_of_a_tuple_add():
    kernel = reference.kernel((3, 3, 2, 4))
    parts = [
        GroupLasso(0.1, "filter"),
        GroupLasso(0.1, "shape"),
        GroupLasso(0.1, block=(2, 3)),
        GroupLasso(0.1, block=(4, 2)),
        GroupLasso(0.1, axis=(1,)),
    ]
    together = GroupLasso(
        0.1, ("filter", "shape", ("block", (4, 2))), axis=1, block=[2, 3]
    )
    penalty, gradient = _value_and_gradient(together, kernel)
    expected = [_value_and_gradient(part, kernel) for part in parts]
    np.testing.assert_allclose(penalty, sum(e[0] for e in expected), rtol=1e-6)
    np.testing.assert_allclose(
        gradient, sum(e[1] for e in expected), rtol=1e-5, atol=1e-7
    )


def test_axis_or_block_take_the_place_of_filters():
    assert GroupLasso(0.1).groups == "filter"
    assert GroupLasso(0.1, axis=0).groups is None
    assert GroupLasso(0.1, block=(1, 1)).groups is None


def test_l1_beside_it():
    kernel = reference.kernel((4, 3))
    kernel[0, 0] = 0.0
    lasso = _value_and_gradient(GroupLasso(0.1), kernel)
    penalty, gradient = _value_and_gradient(GroupLasso(0.1, l1=0.2), kernel)
    np.testing.assert_allclose(
        penalty, lasso[0] + 0.2 * np.abs(kernel).sum(), rtol=1e-6
    )
    np.testing.assert_allclose(
        gradient, lasso[1] + 0.2 * np.sign(kernel), rtol=1e-6
    )


def test_epsilon_is_under_the_root():
    kernel = reference.kernel((4, 3)).astype(np.float64)
    kernel[:, 1] = 0.0
    norms, spread, _ = reference.norms(kernel, "filter", "dense", 1, 1e-2)
    penalty, gradient = _value_and_gradient(
        GroupLasso(0.5, epsilon=1e-2), kernel
    )
    np.testing.assert_allclose(penalty, 0.5 * sum(norms.values()), rtol=1e-12)
    np.testing.assert_allclose(gradient, 0.5 * kernel / spread, rtol=1e-12)
    assert norms[0, 1] == pytest.approx(0.1)


def test_it_is_a_norm_not_its_square():
    # The mistake of several implementations: without the root the gradient
    # vanishes with the group, and nothing ever becomes zero.
    kernel = reference.kernel((6, 5)).astype(np.float64)
    penalty, gradient = _value_and_gradient(GroupLasso(0.3), kernel)
    small, slope = _value_and_gradient(GroupLasso(0.3), 1e-6 * kernel)
    assert small == pytest.approx(1e-6 * penalty, rel=1e-9)
    np.testing.assert_allclose(slope, gradient, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(slope, axis=0), 0.3, rtol=1e-9)


def test_gradient_of_zeros_is_zero():
    for spec in groups.GROUPS:
        penalty, gradient = _value_and_gradient(
            GroupLasso(1.0, spec), np.zeros((3, 3, 2, 4), np.float32)
        )
        assert penalty == 0.0
        np.testing.assert_array_equal(gradient, 0.0)


def test_strength_zero():
    kernel = tf.Variable(reference.kernel((3, 3)))
    assert GroupLasso(0.0)(kernel).numpy() == 0.0
    assert GroupLasso(0)(kernel).dtype == tf.float32


def test_nan_stays_visible():
    kernel = np.array([[np.nan, 0.0]], np.float32)
    penalty, gradient = _value_and_gradient(GroupLasso(1.0), kernel)
    assert np.isnan(penalty)
    assert np.isnan(gradient[0, 0]) and gradient[0, 1] == 0.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float32_for_halves(dtype):
    # Squares overflow in float16, and a sum of 4000 ones stops at 2048 and 256.
    kernel = tf.fill([4000, 2], tf.constant(300.0, dtype))
    penalty = GroupLasso(1.0)(kernel)
    assert penalty.dtype == tf.float32
    size = float(kernel[0, 0])
    np.testing.assert_allclose(penalty, 2 * size * 4000**0.5, rtol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph(jit):
    kernel = reference.kernel((3, 3, 2, 4))
    regularizer = GroupLasso(0.1, ("filter", "channel", ("block", (2, 3))))
    function = tf.function(
        lambda x: tf.stack([regularizer(x), 1.0]),
        jit_compile=jit,
        autograph=False,
    )
    np.testing.assert_allclose(function(kernel)[0], regularizer(kernel), 1e-6)


def _model(regularizer=None, dtype=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input([6, 6, 2]),
            keras.layers.Conv2D(
                4, 3, kernel_regularizer=regularizer, dtype=dtype, name="conv"
            ),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="logits"),
        ]
    )


def test_training_under_mixed_precision_and_saving(tmp_path):
    regularizer = GroupLasso(
        0.01, ("filter", ("block", (2, 3))), "sqrt", l1=1e-3, axis=(0, 1)
    )
    model = _model(regularizer, "mixed_float16")
    model.compile("sgd", "mse", jit_compile=False)
    kernel = model.layers[0].kernel
    assert kernel.dtype == "float32"
    before = regularizer(kernel)
    x, y = np.zeros([4, 6, 6, 2]), np.zeros([4, 1])
    # The data's loss is 0: what is left is the penalty.
    loss = model.fit(x, y, verbose=0).history["loss"]
    np.testing.assert_allclose(loss, before, rtol=1e-5)
    assert 0 < regularizer(kernel) < before

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found = loaded.layers[0].kernel_regularizer
    assert type(found) is GroupLasso
    assert found.get_config() == regularizer.get_config()
    assert found(kernel) == regularizer(kernel)
    np.testing.assert_allclose(loaded.losses, model.losses, rtol=1e-6)


def test_config_is_plain():
    regularizer = GroupLasso(
        0.1,
        ("filter", ("axis", (0, 1))),
        "sqrt",
        "conv",
        2,
        0.2,
        0.3,
        0,
        (1, 3),
    )
    config = json.loads(json.dumps(regularizer.get_config()))
    assert config == {
        "strength": 0.1,
        "groups": ["filter", ["axis", [0, 1]]],
        "scale": "sqrt",
        "kind": "conv",
        "conv_groups": 2,
        "l1": 0.2,
        "epsilon": 0.3,
        "axis": [0],
        "block": [1, 3],
    }
    again = GroupLasso.from_config(config)
    assert again.__dict__ == regularizer.__dict__
    serialized = keras.regularizers.serialize(regularizer)
    again = keras.regularizers.deserialize(serialized)
    assert again.__dict__ == regularizer.__dict__
    assert serialized["registered_name"] == "tf_ssl>GroupLasso"


def test_repr():
    assert repr(GroupLasso(0.1)) == (
        "GroupLasso(strength=0.1, groups='filter', kind='auto')"
    )
    assert repr(GroupLasso(1, axis=0, l1=0.5)) == (
        "GroupLasso(strength=1.0, kind='auto', l1=0.5, axis=(0,))"
    )


@pytest.mark.parametrize("name", ["strength", "l1", "epsilon"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", None])
def test_numbers(name, value):
    with pytest.raises(ValueError) as error:
        GroupLasso(**{"strength": 0.1, name: value})
    assert str(error.value) == (
        f"Invalid value for argument {name}. Expected a finite number >= 0. "
        f"Received: {name}={value!r}"
    )


@pytest.mark.parametrize(
    "name, choices",
    [
        ("scale", "'none', 'sqrt', 'inv_sqrt'"),
        (
            "kind",
            "'auto', 'dense', 'embedding', 'conv', 'transposed', 'depthwise', "
            "'lstm', 'gru'",
        ),
    ],
)
def test_choices(name, choices):
    with pytest.raises(ValueError) as error:
        GroupLasso(0.1, **{name: "nome"})
    assert str(error.value) == (
        f"Invalid value for argument {name}. Expected one of {{{choices}}}. "
        f"Received: {name}='nome'"
    )


@pytest.mark.parametrize("value", [0, 1.5, True])
def test_conv_groups(value):
    with pytest.raises(ValueError) as error:
        GroupLasso(0.1, conv_groups=value)
    assert str(error.value) == (
        "Invalid value for argument conv_groups. Expected an integer >= 1. "
        f"Received: conv_groups={value!r}"
    )


@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_a_kernel_without_such_groups(strength):
    with pytest.raises(ValueError, match="which has no spatial axes"):
        GroupLasso(strength, "kernel2d")(tf.zeros([3, 4]))


def test_groups_by_name_are_checked_first():
    with pytest.raises(ValueError, match="Received: groups='filtre'"):
        GroupLasso(0.1, "filtre")
    with pytest.raises(ValueError, match=r"Received: groups=\(\)"):
        GroupLasso(0.1, ())
