"""Strengths over epochs, and steered to a budget."""

import keras
import numpy as np
import pytest

import tf_terngrad as tg
from tests.tf_ssl.penalties.optimizers.test_group_lasso_optimizer import (
    compile_model,
    fit,
    hidden_units,
    make_model,
)
from tf_ssl.callbacks.group_lasso_metric import GroupLassoMetric
from tf_ssl.callbacks.strength_schedule import (
    StrengthController,
    StrengthSchedule,
)
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.structures.structure import Slice, Structure

Sgd = keras.optimizers.SGD


def _compiled(wrap=lambda o: o, strength=0.1, **arguments):
    model = make_model()
    optimizer = GroupLassoOptimizer(
        Sgd(0.1), [hidden_units(model)], strength, **arguments
    )
    return compile_model(model, wrap(optimizer)), optimizer


@pytest.mark.parametrize(
    "wrap",
    [
        lambda o: o,
        lambda o: tg.DistributedOptimizer(
            keras.optimizers.LossScaleOptimizer(o), tg.NoCompression()
        ),
    ],
    ids=["alone", "wrapped"],
)
def test_by_epoch(wrap):
    model, optimizer = _compiled(wrap)
    history = fit(
        model, 3, callbacks=[StrengthSchedule(lambda epoch: epoch / 2)]
    )
    np.testing.assert_allclose(
        history.history["strength"], [0.0, 0.05, 0.1], rtol=1e-6
    )
    assert float(optimizer.strength[0]) == pytest.approx(0.1)


def test_the_compiled_step_sees_the_strength():
    """Strength 0, then so much that everything dies, in one trace."""
    model, optimizer = _compiled(update="proximal", strength=1.0)
    norms = []
    fit(
        model,
        2,
        callbacks=[
            StrengthSchedule(lambda epoch: 1e3 * epoch),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: norms.append(
                    optimizer.structures[0].norms()
                )
            ),
        ],
    )
    assert (norms[0] > 0).all() and (norms[1] == 0).all()


def test_by_step_and_absolute():
    model, optimizer = _compiled()
    seen = []
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [1, 5], [0.0, 0.25, 0.5]
    )
    fit(
        model,
        2,
        callbacks=[
            StrengthSchedule(schedule, every="step", relative=False),
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: seen.append(
                    float(optimizer.strength[0])
                )
            ),
        ],
    )
    assert seen == [0.0, 0.0] + [0.25] * 4 + [0.5] * 2
    fit(
        model,
        callbacks=[StrengthSchedule(lambda e: {"hid*": 0.75}, relative=False)],
    )
    assert float(optimizer.strength[0]) == 0.75


def test_metric_in_the_logs():
    model, optimizer = _compiled()
    history = fit(model, 2, callbacks=[GroupLassoMetric()]).history
    assert history["strength"] == pytest.approx([0.1, 0.1])
    assert history["group_lasso"][1] == float(optimizer.group_lasso) > 0


def _toy():
    """Forty units of a linear layer, each of some use."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(256, 40)).astype(np.float32)
    use = np.exp(np.linspace(-4, 1, 40))
    targets = inputs @ np.diag(use)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((40,)), keras.layers.Dense(40, name="dense")]
    )
    layer = model.get_layer("dense")
    structure = Structure(
        "dense/units", 40, (Slice(layer.kernel, "out", np.arange(40)[None]),)
    )
    return model, structure, inputs, targets


@pytest.mark.parametrize(
    "target, strength, every, measure",
    [
        (0.5, 1e-4, None, "sparsity"),
        (0.25, 1e-3, 4, "sparsity"),
        (0.7, 1e-4, None, lambda model: _part_zero(model)),
    ],
)
def test_controller_reaches_the_target(target, strength, every, measure):
    model, structure, inputs, targets = _toy()
    optimizer = GroupLassoOptimizer(
        keras.optimizers.Adam(0.02),
        [structure],
        strength,
        update="proximal",
    )
    model.compile(optimizer, "mse", jit_compile=False)
    controller = StrengthController(target, measure, epochs=40, every=every)
    history = model.fit(
        inputs, targets, 32, 60, verbose=0, callbacks=[controller]
    ).history
    name = "unit_sparsity" if measure == "sparsity" else "<lambda>"
    measured = history[name]
    assert measured[0] < 0.5 * target
    # Within two of forty units when it is due, and until the end.
    np.testing.assert_allclose(measured[40:], target, atol=0.051)
    assert measured[-1] == np.mean(structure.norms() == 0)
    assert history["strength"][-1] > 2 * strength


def _part_zero(model):
    kernel = model.get_layer("dense").kernel.numpy()
    return (kernel == 0).mean()


@pytest.mark.parametrize("strength", [0.1, {"*": 0.1}])
def test_inputs_are_no_part_of_what_is_steered(strength):
    """Strength and sparsity are of the structures that are penalized."""
    model = make_model()
    units = hidden_units(model)
    pixels = Structure(
        "x/input",
        6,
        (Slice(units.slices[0].variable, "in", np.arange(6)[:, None]),),
        "input",
        ("in",),
    )
    optimizer = GroupLassoOptimizer(Sgd(0.1), [pixels, units], strength)
    compile_model(model, optimizer)
    units.zero([0, 1])
    seen = []
    fit(
        model,
        callbacks=[
            StrengthSchedule(lambda epoch: seen.append(epoch) or 0.5),
            controller := StrengthController(0.25),
        ],
    )
    assert controller._start == 0.25
    np.testing.assert_allclose(optimizer.strength.numpy(), [0, 0.05])
    fit(
        model,
        callbacks=[StrengthSchedule(lambda epoch: strength, relative=False)],
    )
    np.testing.assert_allclose(optimizer.strength.numpy(), [0, 0.1])


def test_control_law():
    controller = StrengthController(0.8, epochs=10, gain=5.0, max_change=1.5)
    measures = iter([0.0, 0.05, 0.05, 0.9, 0.325])
    controller.measure = lambda model: next(measures)
    model, optimizer = _compiled(strength={"hid*": 0.1})
    controller.set_model(model)
    controller.set_params({"epochs": 99, "steps": None})
    controller.on_train_begin()
    logs = {}
    strengths = []
    for epoch in range(4):
        controller.on_epoch_end(epoch, logs)
        strengths.append(float(optimizer.strength[0]))
    # Plans are 0.08, 0.16, 0.24, 0.32; the last is within the tolerance.
    factors = [np.exp(5 * 0.03), 1.5, 1 / 1.5, 1.0]
    np.testing.assert_allclose(strengths, 0.1 * np.cumprod(factors))
    assert logs == {
        "strength": pytest.approx(strengths[-1]),
        "<lambda>": 0.325,
    }


def test_models_without_the_optimizer():
    model = compile_model(make_model(), inner := Sgd(0.1))
    for callback in (
        StrengthSchedule(lambda epoch: 1.0),
        StrengthController(0.5),
        GroupLassoMetric(),
    ):
        with pytest.raises(TypeError) as error:
            fit(model, callbacks=[callback])
        assert str(error.value) == (
            f"{type(callback).__name__} expects a model compiled with "
            "tf_ssl.GroupLassoOptimizer, also inside other optimizers. The "
            "strength of a tf_ssl.GroupLasso regularizer cannot change while "
            "training: it is a constant of the compiled step. Received: "
            f"optimizer={inner!r}"
        )


def test_what_arguments_are_not():
    with pytest.raises(TypeError) as error:
        StrengthSchedule(0.5)
    assert str(error.value) == (
        "Invalid type for argument schedule. Expected a function from an epoch "
        "or step to a number. Received: schedule=0.5"
    )
    with pytest.raises(ValueError) as error:
        StrengthSchedule(abs, every="batch")
    assert str(error.value) == (
        "Invalid value for argument every. Expected one of {'epoch', 'step'}. "
        "Received: every='batch'"
    )
    model, _ = _compiled()
    with pytest.raises(ValueError) as error:
        fit(model, callbacks=[StrengthSchedule(lambda epoch: -1.0)])
    assert str(error.value) == (
        "Invalid value from schedule. Expected a finite number >= 0. "
        "Received: -1.0 for epoch 0"
    )
    model, _ = _compiled(strength=0.0)
    with pytest.raises(ValueError) as error:
        fit(model, callbacks=[StrengthController(0.5)])
    assert str(error.value) == (
        "StrengthController multiplies strengths and cannot start from 0. Make "
        "the GroupLassoOptimizer with strength > 0."
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"target": 1.5},
            "Invalid value for argument target. Expected a number in [0, 1]. "
            "Received: target=1.5",
        ),
        (
            {"epochs": 0},
            "Invalid value for argument epochs. Expected an integer >= 1. "
            "Received: epochs=0",
        ),
        (
            {"every": 0.5},
            "Invalid value for argument every. Expected an integer >= 1. "
            "Received: every=0.5",
        ),
        (
            {"gain": 0},
            "Invalid value for argument gain. Expected a finite number > 0. "
            "Received: gain=0",
        ),
        (
            {"max_change": 1},
            "Invalid value for argument max_change. Expected a finite number > "
            "1. Received: max_change=1",
        ),
        (
            {"tolerance": -0.1},
            "Invalid value for argument tolerance. Expected a finite number >= "
            "0. Received: tolerance=-0.1",
        ),
    ],
)
def test_what_arguments_of_the_controller_are_not(arguments, message):
    with pytest.raises(ValueError) as error:
        StrengthController(**({"target": 0.5} | arguments))
    assert str(error.value) == message


def test_what_no_measure_is():
    with pytest.raises(TypeError) as error:
        StrengthController(0.5, "flops")
    assert str(error.value) == (
        "Invalid type for argument measure. Expected 'sparsity' or a function "
        "from the model to a number. Received: measure='flops'"
    )
