"""Structures find their variables in a loaded model."""

import keras
import numpy as np
import pytest

from tf_ssl.penalties.optimizers import saved_paths
from tf_ssl.structures.structure import Slice, Structure


def _nested():
    """Two Sequentials whose layers have the same name."""
    inputs = keras.Input((3,))
    x = inputs
    for name in ("first", "second"):
        x = keras.Sequential([keras.layers.Dense(3, name="a")], name=name)(x)
    return keras.Model(inputs, x)


def _structure(variable):
    units = np.arange(3)[None]
    return Structure("a/units", 3, (Slice(variable, "out", units),))


def test_paths_that_loading_shortens(tmp_path):
    model = _nested()
    variables = model.trainable_variables
    paths = [v.path for v in variables]
    assert paths[2] == "second/a/kernel"
    config = _structure(variables[2]).get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    variables = loaded.trainable_variables
    assert [v.path for v in variables].count("a/kernel") == 2
    structure = saved_paths.bind(config, variables, paths)
    assert structure.slices[0].variable is variables[2]
    # Without the order it could be either.
    with pytest.raises(ValueError) as error:
        saved_paths.bind(config, variables)
    assert str(error.value) == (
        "Structure a/units has weights in the variable second/a/kernel. "
        "Expected one variable of that path. Received: 2"
    )


@pytest.mark.parametrize("path", ["conv/kernel", "net/conv/kernel", "kernel"])
def test_the_end_of_a_path(path):
    with keras.name_scope("conv"):
        kernel = keras.Variable(np.ones((2, 3)), name="kernel")
    config = _structure(kernel).get_config()
    config["slices"][0]["variable"] = path
    structure = saved_paths.bind(config, [kernel])
    assert structure.slices[0].variable is kernel


@pytest.mark.parametrize("path", ["v/kernel", "nv/kernel", "conv/kernel/b"])
def test_another_path(path):
    with keras.name_scope("conv"):
        kernel = keras.Variable(np.ones((2, 3)), name="kernel")
    config = _structure(kernel).get_config()
    config["slices"][0]["variable"] = path
    for paths in (None, [path]):
        with pytest.raises(ValueError, match="Received: 0"):
            saved_paths.bind(config, [kernel], paths)
