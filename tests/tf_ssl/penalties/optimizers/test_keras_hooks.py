"""Private methods of Keras' optimizers that the group Lasso needs.

Tried by hand with 3.12.4, installed beside: `pip install --no-deps --target
/tmp/k312 keras==3.12.4; PYTHONPATH=/tmp/k312 pytest
tests/tf_ssl/penalties/optimizers tests/tf_ssl/test_ten_lines.py`.
"""

import ast
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_ssl
from tf_ssl.penalties.optimizers import keras_hooks
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.structures.structure import Slice, Structure

optimizers = keras.optimizers
ROOT = pathlib.Path(tf_ssl.__file__).parent


def test_versions_tried():
    assert keras_hooks.TRIED == ("3.12.4", "3.15.1")


@pytest.mark.parametrize("name", keras_hooks.METHODS)
def test_a_method_that_is_missing(monkeypatch, name):
    """Each of them: a Keras without it would not do."""
    keras_hooks.check()
    monkeypatch.setattr(optimizers.Optimizer, name, None)
    variable = keras.Variable(np.ones((2, 3)), name="w")
    structure = Structure("s", 3, (Slice(variable, "out", np.arange(3)[None]),))
    with pytest.raises(RuntimeError) as error:
        GroupLassoOptimizer(optimizers.SGD(), [structure], 1.0)
    assert str(error.value) == (
        f"Keras {keras.__version__} has no Optimizer.{name}. Expected one of "
        "the versions that tf_ssl was tried with: 3.12.4, 3.15.1."
    )


@pytest.mark.parametrize(
    "make, slots",
    [
        (lambda: optimizers.SGD(momentum=0.5), ["momentum"]),
        (optimizers.Adam, ["second moment"]),
        (
            lambda: optimizers.AdamW(amsgrad=True),
            ["second moment", "largest second moment"],
        ),
        (optimizers.Nadam, ["second moment"]),
        (optimizers.Adamax, ["largest gradient"]),
        (
            lambda: optimizers.RMSprop(centered=True, momentum=0.5),
            ["second moment", "mean gradient", "momentum"],
        ),
        (optimizers.Adagrad, ["sum of squares"]),
    ],
)
def test_slots(make, slots):
    variables = [keras.Variable(np.ones(n), name=f"v{n}") for n in (2, 3)]
    optimizer = make()
    optimizer.build(variables)
    for name in slots:
        for variable in variables:
            found = keras_hooks.slot(optimizer, name, variable)
            assert found.shape == variable.shape
    with pytest.raises(RuntimeError, match="Lion of Keras .* has no _u. "):
        keras_hooks.slot(optimizers.Lion(), "largest gradient", variables[0])


def test_functions_stand_around_a_step():
    variable = keras.Variable(np.ones(2), name="v")
    optimizer = optimizers.SGD(1.0, clipvalue=0.5, use_ema=True)
    seen = []

    def update(own, grads, variables, learning_rate):
        seen.append(("update", [g.numpy().tolist() for g in grads]))
        own(grads, variables, learning_rate)

    def averages(own, variables):
        seen.append("averages")
        own(variables)

    def gradients(grads, variables):
        return [g + 0.25 for g in grads]

    with keras_hooks.around_update(optimizer, update, averages, gradients):
        optimizer.apply([tf.constant([0.125, 3.0])], [variable])
        optimizer.finalize_variable_values([variable])
    assert seen == [("update", [[0.375, 0.5]]), "averages"]
    optimizer.apply([tf.constant([0.0, 0.0])], [variable])
    assert len(seen) == 2


def test_registered_variables():
    optimizer = optimizers.SGD()
    variables = [keras.Variable(np.ones(2)) for _ in range(3)]
    keras_hooks.register(optimizer, variables[:2])
    assert keras_hooks.trained(optimizer) == variables[:2]
    assert keras_hooks.position(optimizer, variables[1]) == 1
    assert keras_hooks.trains(optimizer, variables[0])
    assert not keras_hooks.trains(optimizer, variables[2])


def test_only_there():
    """No other file of the penalties or callbacks names them."""
    private = {*keras_hooks.METHODS, "_trainable_variables"}
    private |= {n for names in keras_hooks.SLOTS.values() for n in names}
    private = {name for name in private if name.startswith("_")}
    for room in ("penalties", "callbacks"):
        for path in (ROOT / room).rglob("*.py"):
            used = {
                node.attr
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
            }
            if path.name != "keras_hooks.py":
                assert not used & private, path
