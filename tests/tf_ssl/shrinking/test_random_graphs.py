"""Random graphs of all that has a rule: the smaller model is the same.

`HYPOTHESIS_EXAMPLES=1000 pytest ...` tries so many of each family.
"""

import os

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers

import tf_ssl
from tests.tf_ssl.shrinking.image_blocks import (
    LENGTH,
    ImageMaker,
    SequenceMaker,
    VectorMaker,
)
from tests.tf_ssl.shrinking.test_shrink import fill

_EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "10"))
_FAMILIES = {
    "image": (ImageMaker, (LENGTH, LENGTH, 3)),
    "sequence": (SequenceMaker, (LENGTH, 5)),
    "vector": (VectorMaker, (8,)),
}
_MODES = ("all", "out", "kernels", "in")


def blocks_of(maker):
    """Names of its parts."""
    return sorted(
        name
        for name in dir(maker)
        if not name.startswith("_")
        and name not in ("pick", "size", "act", "flag", "random")
    )


def build(family, names, seed):
    """A model of parts, one behind the other, and some earlier ones."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    kind, shape = _FAMILIES[family]
    maker = kind(random)
    x = inputs = keras.Input(shape)
    made = []
    for name in names:
        x = getattr(maker, name)(x)
        made.append(x)
    early = made[random.integers(len(made))]
    x = layers.Flatten()(x)
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(2)(early)])


def plant(structures, mode, random):
    """Kills a third of the units; name -> how many."""
    planted = {}
    for structure in structures:
        if structure.kind == "input" or structure.size < 2:
            continue
        count = max(1, structure.size // 3)
        units = random.permutation(structure.size)[:count]
        roles = {"out": ("out", "norm"), "kernels": ("out",), "in": ("in",)}
        if mode == "all":
            structure.zero(units)
        else:
            for part in structure.of(roles[mode]):
                if mode != "kernels" or not part.is_bias:
                    part.zero(units)
        if mode == "all":
            planted[structure.name] = count
    return planted


def outputs(model, inputs):
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float64"))
        for x in keras.tree.flatten(model(inputs, training=False))
    ]


def assert_equal(expected, actual, tolerance):
    for a, b in zip(expected, actual, strict=True):
        assert a.shape == b.shape
        atol = tolerance * max(np.abs(a).max(), 1e-6)
        np.testing.assert_allclose(b, a, rtol=0, atol=atol)


def check(model, mode, seed, tolerance, tmp_path=None):
    """Plants, shrinks, compares."""
    fill(model, seed)
    random = np.random.default_rng(seed)
    structures = tf_ssl.find_structures(model)
    planted = plant(structures, mode, random)
    shape = (3, *model.inputs[0].shape[1:])
    inputs = random.normal(size=shape).astype("float32")
    expected = outputs(model, inputs)
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    small = tf_ssl.shrink(model, sample=inputs, tolerance=1e9)
    assert_equal(expected, outputs(small, inputs), tolerance)
    for variable, value in zip(model.variables, before, strict=True):
        now = keras.ops.convert_to_numpy(variable)
        np.testing.assert_array_equal(now, value)
    report = small.shrink_report
    kept: dict = {}
    for name, count, _ in report.kept:
        kept[name] = kept.get(name, 0) + count
    for name, count in planted.items():
        was, now = report.units[name]
        assert was - now >= count - kept.get(name, 0), (name, str(report))
    if tmp_path is not None:
        small.save(tmp_path / "small.keras")
        again = keras.models.load_model(tmp_path / "small.keras")
        assert_equal(outputs(small, inputs), outputs(again, inputs), 1e-6)
    targets = [np.zeros(x.shape) for x in expected]
    small.compile("sgd", ["mse", "mse"])
    small.train_on_batch(inputs, targets)
    return small


@pytest.mark.parametrize("family", list(_FAMILIES))
def test_random_graph(family, tmp_path):
    names = blocks_of(_FAMILIES[family][0])

    @hypothesis.settings(
        max_examples=_EXAMPLES,
        derandomize=_EXAMPLES <= 30,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        st.lists(st.sampled_from(names), min_size=3, max_size=6),
        st.sampled_from(_MODES),
        st.integers(0, 10**6),
    )
    def run(parts, mode, seed):
        check(build(family, parts, seed), mode, seed, 3e-5, tmp_path)

    run()


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    [("float64", 1e-10), ("mixed_float16", 2e-2), ("mixed_bfloat16", 1e-1)],
)
@pytest.mark.parametrize("family", ["image", "sequence"])
def test_policies(family, policy, tolerance):
    parts = {
        "image": ["conv", "norm", "depthwise", "residual", "excite"],
        "sequence": ["einsum", "recurrent", "attention", "composite", "norm"],
    }[family]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        check(build(family, parts, 3), "all", 3, tolerance)
    finally:
        keras.config.set_dtype_policy(before)
