"""Tests of optimizers for smaller models, tf_ssl/shrinking/optimizer_state.py.

A Dense net whose hidden units 0 and 2 are dead, and the net without them.
"""

import logging

import keras
import numpy as np
import pytest

import tf_ssl
import tf_terngrad as tg
from tf_ssl.graph.check import state_of
from tf_ssl.shrinking.optimizer_state import optimizer_for

L = keras.layers
O = keras.optimizers  # noqa: E741
DEAD, KEPT = [0, 2], [1, 3, 4, 5]
# By variable: axis along which hidden units lie.
AXES = {"first/kernel": 1, "first/bias": 0, "second/kernel": 0}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype(np.float32)
Y = RNG.normal(size=(16, 2)).astype(np.float32)


def net(units=6, dtype=None):
    x = keras.Input((3,), name="x")
    h = L.Dense(units, activation="tanh", name="first", dtype=dtype)(x)
    return keras.Model(x, L.Dense(2, name="second", dtype=dtype)(h))


def cut(variable, value):
    axis = AXES.get(variable.path)
    return value if axis is None else np.take(value, KEPT, axis)


def zero_dead(model):
    for variable in model.variables:
        axis = AXES.get(variable.path)
        if axis is not None:
            value = variable.numpy()
            value[(slice(None),) * axis + (DEAD,)] = 0
            variable.assign(value)


class Masked(keras.callbacks.Callback):
    """Dead units stay dead."""

    def on_train_batch_end(self, batch, logs=None):
        zero_dead(self.model)


def fit(model, steps, callbacks=()):
    model.fit(
        X,
        Y,
        batch_size=8,
        epochs=steps,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
    )


def trained(optimizer, dtype=None, steps=2):
    """A zeroed model after steps, and the smaller one: (big, small, pairs)."""
    keras.utils.set_random_seed(0)
    big = net(dtype=dtype)
    zero_dead(big)
    big.compile(optimizer, "mse", jit_compile=False)
    fit(big, steps, [Masked()])
    small = net(4, dtype)
    pairs = list(zip(big.variables, small.variables, strict=True))
    for old, new in pairs:
        new.assign(cut(old, old.numpy()))
    return big, small, pairs


def accumulating(optimizer):
    optimizer.gradient_accumulation_steps = 2
    return optimizer


BY_ELEMENT = {
    "sgd": lambda: O.SGD(0.05),
    "momentum": lambda: O.SGD(0.05, momentum=0.9),
    "nesterov": lambda: O.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: O.Adam(0.01),
    "amsgrad": lambda: O.Adam(0.01, amsgrad=True),
    "adamw": lambda: O.AdamW(0.01, weight_decay=0.1),
    "adamax": lambda: O.Adamax(0.01),
    "nadam": lambda: O.Nadam(0.01),
    "rmsprop": lambda: O.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: O.Adagrad(0.1),
    "adadelta": lambda: O.Adadelta(1.0),
    "ftrl": lambda: O.Ftrl(0.1),
    "lion": lambda: O.Lion(0.001),
    "accumulation": lambda: O.Adam(0.01, gradient_accumulation_steps=3),
    "ema": lambda: O.SGD(
        0.05, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    ),
    "clipped": lambda: O.SGD(0.05, momentum=0.9, global_clipnorm=0.1),
    "loss scale": lambda: O.LossScaleOptimizer(O.Adam(0.01), 2.0**4, 3),
    "schedule": lambda: O.SGD(
        O.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9
    ),
    "function": lambda: O.SGD(lambda: 0.03, momentum=0.9),
    "force": lambda: tf_ssl.AdaptiveForce(O.Adam(0.01), 0.0),
    "distributed": lambda: tg.DistributedOptimizer(
        O.Adam(0.01), tg.NoCompression()
    ),
    "distributed accumulation": lambda: tg.DistributedOptimizer(
        O.SGD(0.05, momentum=0.9),
        tg.NoCompression(),
        gradient_accumulation_steps=3,
    ),
    "loss scale around": lambda: O.LossScaleOptimizer(
        tf_ssl.AdaptiveForce(O.Adam(0.01), 0.0), 2.0**4, 3
    ),
}
OTHERS = {
    "lamb": lambda: O.Lamb(0.01),
    "adafactor": lambda: O.Adafactor(0.01),
    "muon": lambda: O.Muon(0.01),
    "schedule free": lambda: O.ScheduleFreeAdamW(0.01),
}


@pytest.mark.parametrize("name", BY_ELEMENT)
def test_trains_as_the_zeroed_model_under_a_mask(name):
    big, small, pairs = trained(BY_ELEMENT[name]())
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    assert type(optimizer) is type(big.optimizer) and optimizer.built
    small.compile(optimizer, "mse", jit_compile=False)
    fit(small, 3)
    fit(big, 3, [Masked()])
    for old, new in pairs:
        np.testing.assert_allclose(
            cut(old, old.numpy()), new, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", [*BY_ELEMENT, *OTHERS])
def test_state_of_what_stays(name):
    if name == "schedule free" and not hasattr(O, "ScheduleFreeAdamW"):
        pytest.skip("not in this Keras")
    big, small, pairs = trained({**BY_ELEMENT, **OTHERS}[name]())
    before = [v.numpy() for v in big.optimizer.variables]
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    after = [v.numpy() for v in optimizer.variables]
    by_name = {v.path.replace("/", "_"): v for v in big.variables}
    seen = 0
    for variable, old, new in zip(
        big.optimizer.variables, before, after, strict=True
    ):
        owner = [v for k, v in by_name.items() if k in variable.path]
        if owner and tuple(owner[0].shape) == old.shape:
            old = cut(owner[0], old)
            seen += 1
        assert new.dtype == old.dtype
        if name != "adafactor" or owner:  # see the next test
            np.testing.assert_array_equal(old, new)
    assert seen or name in ("sgd", "function")
    ids = {id(v) for v in big.optimizer.variables}
    assert not ids & {id(v) for v in optimizer.variables}
    small.compile(optimizer, "mse", jit_compile=False)
    fit(small, 1)
    for a, b in zip(before, big.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_factored_moments_are_cut():
    big, small, pairs = trained(O.Adafactor(0.01))
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    old, new = big.optimizer, optimizer
    np.testing.assert_array_equal(old._r[0], new._r[0])
    np.testing.assert_array_equal(np.take(old._c[0], KEPT), new._c[0])
    np.testing.assert_array_equal(np.take(old._r[2], KEPT), new._r[2])
    np.testing.assert_array_equal(old._c[2], new._c[2])
    assert np.any(new._c[0]) and np.any(new._r[2])


def test_frozen_unknown_and_new_variables():
    optimizer = O.Adam(0.01)
    big, small, pairs = trained(optimizer)
    small.get_layer("second").trainable = False  # known, frozen meanwhile
    extra = L.Dense(2, name="extra")
    model = keras.Model(small.input, extra(small.output))
    again = optimizer_for(optimizer, model, pairs, cut)
    paths = [v.path for v in again._trainable_variables]
    assert paths == ["first/kernel", "first/bias", "extra/kernel", "extra/bias"]
    i = paths.index("extra/kernel")
    assert not np.any(again._momentums[i]) and np.any(again._momentums[0])
    assert again.iterations.numpy() == optimizer.iterations.numpy()
    model.compile(again, "mse")
    fit(model, 1)

    partial = O.Adam(0.01)  # knows one layer only
    partial.build(big.get_layer("first").trainable_variables)
    small.get_layer("second").trainable = True
    again = optimizer_for(partial, small, pairs, cut)
    assert [v.path for v in again._trainable_variables] == [
        "first/kernel",
        "first/bias",
    ]


def test_error_feedback_is_cut():
    big = net()
    optimizer = tg.DistributedOptimizer(
        O.SGD(0.1), tg.TernGrad(error_feedback=True)
    )
    optimizer.build(big.trainable_variables)
    for residual in optimizer.feedback.residuals[0]:
        residual.assign(RNG.normal(size=residual.shape))
    small = net(4)
    pairs = list(zip(big.variables, small.variables, strict=True))
    again = optimizer_for(optimizer, small, pairs, cut)
    for variable, old, new in zip(
        big.trainable_variables,
        optimizer.feedback.residuals[0],
        again.feedback.residuals[0],
        strict=True,
    ):
        np.testing.assert_array_equal(cut(variable, old.numpy()), new)


def test_one_of_several_by_path():
    if not hasattr(O, "MultiOptimizer"):
        pytest.skip("not in this Keras")
    adam, sgd = O.Adam(0.01), O.SGD(0.05, momentum=0.9)
    chosen = O.OptimizerMap(adam, {"second/.*": sgd})
    big, small, pairs = trained(O.MultiOptimizer(chosen))
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    small.compile(optimizer, "mse", jit_compile=False)
    fit(small, 2)
    fit(big, 2, [Masked()])
    for old, new in pairs:
        np.testing.assert_allclose(
            cut(old, old.numpy()), new, rtol=1e-5, atol=1e-6
        )
    assert optimizer.optimizers[0] is not sgd


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    big, small, pairs = trained(
        O.LossScaleOptimizer(O.Adam(0.01)), keras.DTypePolicy(policy)
    )
    optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    assert float(optimizer.dynamic_scale) == float(big.optimizer.dynamic_scale)
    small.compile(optimizer, "mse")
    fit(small, 1)


def test_state_of_an_unknown_shape_starts_anew(caplog):
    class Odd(O.SGD):
        def build(self, variables):
            super().build(variables)
            self.odd = [
                self.add_variable((2, *v.shape, 3), "ones", name="odd")
                for v in variables
            ]

    big, small, pairs = trained(Odd(0.1))
    for variable in big.optimizer.odd:
        variable.assign(2 * variable)
    with caplog.at_level(logging.WARNING):
        optimizer = optimizer_for(big.optimizer, small, pairs, cut)
    assert np.all(optimizer.odd[0] == 1)
    assert (
        "The optimizer keeps an array of shape (2, 3, 6, 3) for the variable "
        "first/kernel of shape (3, 6): that of the smaller model starts anew."
    ) in caplog.text


def test_the_optimizer_and_its_model_stay():
    big, small, pairs = trained(BY_ELEMENT["momentum"]())
    before = [v.numpy() for v in [*state_of(big), *big.optimizer.variables]]
    optimizer_for(big.optimizer, small, pairs, cut)
    after = [v.numpy() for v in [*state_of(big), *big.optimizer.variables]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
