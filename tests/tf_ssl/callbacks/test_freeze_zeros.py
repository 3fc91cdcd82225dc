"""Zeros that stay zero through a fit."""

import keras
import numpy as np
import pytest

from tests.tf_ssl.penalties.optimizers.test_group_lasso_optimizer import (
    compile_model,
    fit,
    hidden_units,
    make_model,
)
from tf_ssl.callbacks.freeze_zeros import FreezeZeros
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.structures.structure import Slice, Structure

optimizers = keras.optimizers


def _pruned(optimizer, **kwargs):
    """Unit 2 is dead, and so is input 3 of the layer; other zeros beside."""
    model = compile_model(make_model(), optimizer, **kwargs)
    kernel = model.get_layer("hidden").kernel
    value = kernel.numpy()
    value[:, 2] = 0
    value[3] = 0
    value[0, :4] = 0
    kernel.assign(value)
    return model, kernel, value


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: optimizers.Adam(0.05),
        lambda: optimizers.SGD(
            0.1, momentum=0.9, use_ema=True, ema_overwrite_frequency=3
        ),
    ],
    ids=["nesterov", "adam", "ema"],
)
def test_all_zeros_of_kernels_stay(make):
    model, kernel, before = _pruned(make(), steps_per_execution=3)
    # With momentum: what an earlier fit has left must not move them.
    fit(model)
    assert (kernel.numpy()[3] != 0).sum() == 7
    kernel.assign(before)
    fit(model, 2, callbacks=[FreezeZeros()])
    after = kernel.numpy()
    np.testing.assert_array_equal(after == 0, before == 0)
    assert (after != before)[before != 0].all()
    # Biases begin at zero, and are free.
    assert (model.get_layer("hidden").bias.numpy() != 0).any()
    assert kernel.constraint is None
    fit(model)
    assert (kernel.numpy()[3] != 0).sum() == 7


def test_at_every_batch():
    class Watch(keras.callbacks.Callback):
        zeros = 0

        def on_train_batch_end(self, batch, logs=None):
            Watch.zeros += (kernel.numpy() == 0)[before == 0].all()

    model, kernel, before = _pruned(optimizers.Adam(0.05))
    fit(model, 1, callbacks=[FreezeZeros(), Watch()])
    assert Watch.zeros == 4


def test_rows_and_columns_stay():
    model, kernel, before = _pruned(optimizers.SGD(0.1))
    fit(model, callbacks=[FreezeZeros(by="group")])
    expected = np.zeros_like(before, bool)
    expected[:, 2] = expected[3] = True
    np.testing.assert_array_equal(kernel.numpy() == 0, expected)


@pytest.mark.parametrize("by", ["element", "group"])
def test_of_structures(by):
    model, kernel, before = _pruned(optimizers.SGD(0.1))
    structure = hidden_units(model)
    consumer = model.get_layer("logits").kernel
    value = consumer.numpy()
    value[[2, 5]] = 0
    consumer.assign(value)
    fit(model, callbacks=[FreezeZeros([structure], by=by)])
    zero = kernel.numpy() == 0
    if by == "element":
        np.testing.assert_array_equal(zero, before == 0)
        assert np.flatnonzero(consumer.numpy() == 0).tolist() == [2, 5]
    else:
        # What nothing reads does not learn: a zero of unit 5 stays, too.
        assert zero[:, 2].all() and zero.sum() == 7
        assert np.flatnonzero(consumer.numpy() == 0).tolist() == [2, 5]


def test_within_a_group_lasso_and_a_constraint_of_the_layer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                8, name="hidden", kernel_constraint=keras.constraints.NonNeg()
            ),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="logits"),
        ]
    )
    optimizer = GroupLassoOptimizer(
        optimizers.Adam(0.01), [hidden_units(model)], 0.0, update="proximal"
    )
    compile_model(model, optimizer)
    kernel = model.get_layer("hidden").kernel
    value = np.abs(kernel.numpy())
    value[:, :3] = 0
    kernel.assign(value)
    constraint = kernel.constraint
    fit(model, 3, callbacks=[FreezeZeros()])
    after = kernel.numpy()
    assert (after[:, :3] == 0).all() and (after >= 0).all()
    assert kernel.constraint is constraint


def test_what_arguments_are_not():
    with pytest.raises(ValueError) as error:
        FreezeZeros(by="unit")
    assert str(error.value) == (
        "Invalid value for argument by. Expected one of {'element', 'group'}. "
        "Received: by='unit'"
    )
    with pytest.raises(TypeError) as error:
        FreezeZeros(["conv1"])
    assert str(error.value) == (
        "Invalid type for argument structures. Expected None or a list of "
        "tf_ssl.Structure, as find_structures(model) returns. Received: "
        "structures=['conv1']"
    )
    model = compile_model(make_model(), optimizers.SGD())
    with pytest.raises(ValueError) as error:
        fit(model, callbacks=[FreezeZeros([hidden_units(make_model())])])
    assert str(error.value) == (
        "Structure hidden/units has weights in the variable mlp/hidden/kernel, "
        "which is not among the 8 variables of the model."
    )


def test_of_inputs_nothing_is_held():
    model, kernel, _ = _pruned(optimizers.SGD(0.1))
    rows = Slice(kernel, "in", np.arange(6)[:, None])
    pixels = Structure("x/input", 6, (rows,), "input", ("in",))
    fit(model, callbacks=[FreezeZeros([pixels, hidden_units(model)], "group")])
    assert (kernel.numpy()[3] != 0).sum() == 7


def test_of_a_frozen_base_nothing_is_held():
    model = compile_model(make_model(), optimizers.SGD(0.1))
    model.get_layer("hidden").trainable = False
    compile_model(model, optimizers.SGD(0.1))
    consumer = model.get_layer("logits").kernel
    consumer.assign(np.arange(8)[:, None] % 2)
    units = hidden_units(model)
    fit(model, callbacks=[FreezeZeros([units])])
    zero = np.flatnonzero(consumer.numpy() == 0)
    assert zero.tolist() == [0, 2, 4, 6]
    assert not np.any(units.slices[0].variable.numpy() == 0)
