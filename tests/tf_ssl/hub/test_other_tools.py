"""decompose, sparsify, save_sparse, compare on backbones of KerasHub."""

import keras
import numpy as np
import pytest

import tf_ssl
from tests.tf_ssl.hub import backbones

if not backbones.has_keras_hub():
    pytest.skip("keras_hub is not installed", allow_module_level=True)

FAMILIES = backbones.families()
_QUICK = ("bert", "gpt2", "vit")


def _slow_but(names):
    return [
        pytest.param(name, marks=() if name in names else (pytest.mark.slow,))
        for name in FAMILIES
    ]


def _sparse(family):
    """The family; a fifth of each kernel's weights are not zero."""
    entry = FAMILIES[family]
    model = entry.build()
    for variable in model.variables:
        if variable.name == "kernel" and len(variable.shape) in (2, 4):
            zeros = np.random.default_rng(0).random(variable.shape) > 0.2
            variable.assign(np.where(zeros, 0, variable))
    return entry, model


@pytest.mark.parametrize("family", _slow_but(_QUICK))
def test_decompose_and_sparsify(family):
    entry, model = _sparse(family)
    report = tf_ssl.decompose(
        model, energy=0.5, length=entry.length
    ).decompose_report
    assert report.difference <= report.tolerance == 1e-5
    assert not any("does not open" in reason for _, reason in report.skipped)
    report = tf_ssl.sparsify(
        model, measure=False, least_speed_up=1, length=entry.length
    ).sparsify_report
    assert report.difference <= report.tolerance
    assert not any("does not open" in row.reason for row in report.layers)


@pytest.mark.parametrize("family", _slow_but(("bert",)))
def test_sparse_files_and_multiply_adds_of_what_was_shrunk(family, tmp_path):
    entry, model = _sparse(family)
    small = tf_ssl.shrink(model, length=entry.length)
    inputs = entry.inputs(small, 2)
    path = tf_ssl.storage.save_sparse(small, tmp_path / "model.npz")
    loaded = tf_ssl.storage.load_sparse(path)
    for a, b in zip(
        keras.tree.flatten(small(inputs)),
        keras.tree.flatten(loaded(inputs)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    before = tf_ssl.multiply_adds(model, inputs)
    assert before.unknown == {}
    assert 0 < tf_ssl.multiply_adds(small, inputs).total <= before.total
