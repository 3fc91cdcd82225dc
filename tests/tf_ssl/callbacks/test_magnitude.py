"""Magnitude pruning: schedule, which weights go, that they stay away."""

import keras
import numpy as np
import pytest

from tf_ssl.callbacks import MagnitudePruning
from tf_ssl.structures.structure import Slice, Structure

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype(np.float32)
Y = RNG.normal(size=(16, 3)).astype(np.float32)


def _model(learning_rate=0.01, steps_per_execution=None):
    # Eager steps are quicker than tracing a graph for so few of them.
    keras.utils.set_random_seed(0)
    inputs = keras.Input([6, 6, 2])
    x = L.Conv2D(8, 3, name="conv")(inputs)
    x = L.Flatten()(x)
    x = L.Dense(10, activation="relu", name="hidden")(x)
    x = L.Dense(3, name="logits")(x)
    model = keras.Model(inputs, L.Activation("tanh")(x))
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9),
        "mse",
        jit_compile=False,
        run_eagerly=steps_per_execution is None,
        steps_per_execution=steps_per_execution or 1,
    )
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.ones(layer.bias.shape))
    return model


def _fit(model, callback, epochs=2):
    model.fit(X, Y, 2, epochs, verbose=0, callbacks=[callback])  # 8 steps each
    return {
        name: keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        for name in ("conv", "hidden", "logits")
    }


def test_cubic_schedule():
    pruning = MagnitudePruning(0.8, 100, 300)
    steps = np.arange(0, 400)
    progress = np.clip((steps - 100) / 200, 0, 1)
    expected = 0.8 - 0.8 * (1 - progress) ** 3
    found = [pruning.sparsity(int(step)) for step in steps]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_weights(steps_per_execution):
    model = _model(steps_per_execution=steps_per_execution)
    kernels = _fit(model, MagnitudePruning(0.75, 0, 10, frequency=3))
    for kernel in kernels.values():
        assert (kernel == 0).sum() == round(0.75 * kernel.size)
    assert np.all(model.get_layer("hidden").bias != 0)


def test_the_smallest_weights_go():
    model = _model(learning_rate=0.0)
    before = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    after = _fit(model, MagnitudePruning(0.5, 0, 1))["conv"]
    order = np.sort(np.abs(before), axis=None)
    expected = np.where(np.abs(before) < order[before.size // 2], 0, before)
    np.testing.assert_array_equal(after, expected)


def test_between_two_choices_zeros_stay_under_momentum():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.get_layer("hidden").kernel
            seen.append(keras.ops.convert_to_numpy(kernel) == 0)

    model = _model()
    pruning = MagnitudePruning(0.75, 2, 10, frequency=100)
    model.fit(X, Y, 2, 2, verbose=0, callbacks=[pruning, Watch()])
    counts = [int(zeros.sum()) for zeros in seen]
    size = seen[0].size
    # Steps 1 to 16: nothing before step 2, final from step 10 on.
    assert counts[:9] == [0] * 9
    assert counts[9:] == [round(0.75 * size)] * 7
    for zeros in seen[10:]:
        np.testing.assert_array_equal(zeros, seen[9])


def test_filters_with_their_biases_but_not_the_outputs():
    model = _model()
    kernels = _fit(model, MagnitudePruning(0.5, 0, 8, by="filter"))
    for name, count in [("conv", 4), ("hidden", 5)]:
        dead = (kernels[name] == 0).reshape(-1, kernels[name].shape[-1]).all(0)
        assert dead.sum() == count
        bias = keras.ops.convert_to_numpy(model.get_layer(name).bias)
        np.testing.assert_array_equal(bias == 0, dead)
        assert (kernels[name] == 0).mean() == 0.5  # and nothing else
    assert np.all(kernels["logits"] != 0)


def test_the_filters_with_the_smallest_norms_go():
    model = _model(learning_rate=0.0)
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    norms = np.linalg.norm(kernel.reshape(-1, 8), axis=0)
    after = _fit(model, MagnitudePruning(0.5, 0, 1, by="filter"))["conv"]
    dead = (after == 0).all(axis=(0, 1, 2))
    np.testing.assert_array_equal(dead, norms < np.sort(norms)[4])


def test_outputs_of_nested_models_stay_whole():
    inner = keras.Sequential(
        [keras.Input([5]), L.Dense(6, name="hidden"), L.Dense(4, name="last")]
    )
    inputs = keras.Input([5])
    model = keras.Model(inputs, L.ReLU()(inner(inputs)))
    model.compile("sgd", "mse", run_eagerly=True)
    pruning = MagnitudePruning(0.5, 0, 1, by="filter")
    model.fit(
        np.ones([4, 5]), np.ones([4, 4]), 2, verbose=0, callbacks=[pruning]
    )
    hidden, last = (
        keras.ops.convert_to_numpy(layer.kernel) for layer in inner.layers
    )
    assert (hidden == 0).all(axis=0).sum() == 3
    assert (last == 0).all(axis=0).sum() == 0


def test_exclude():
    kernels = _fit(
        _model(), MagnitudePruning(0.5, 0, 1, exclude=["conv/*", "logits/*"])
    )
    assert np.all(kernels["conv"] != 0)
    assert np.all(kernels["logits"] != 0)
    assert (kernels["hidden"] == 0).mean() == 0.5


def _structure(model):
    conv, hidden = model.get_layer("conv"), model.get_layer("hidden")
    filters = np.arange(8)
    # Flatten: [height, width, channel] -> rows of the hidden kernel
    rows = np.tile(filters, 16)[:, None]
    return Structure(
        "conv/filters",
        8,
        (
            Slice(conv.kernel, "out", filters.reshape(1, 1, 1, 8)),
            Slice(conv.bias, "out", filters),
            Slice(hidden.kernel, "in", rows),
        ),
    )


def test_filters_of_structures():
    model = _model()
    structure = _structure(model)
    pruning = MagnitudePruning(
        0.5, 0, 4, by="filter", structures=[structure], frequency=1
    )
    kernels = _fit(model, pruning)
    dead = structure.norms(("out", "norm", "in")) == 0
    assert dead.sum() == 4
    rows = (kernels["hidden"] == 0).all(axis=1)
    np.testing.assert_array_equal(rows, np.tile(dead, 16))


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), None])
def test_final_sparsity(value):
    with pytest.raises(ValueError) as error:
        MagnitudePruning(value, 0, 1)
    assert str(error.value) == (
        "Invalid value for argument final_sparsity. Expected a number in "
        f"[0, 1). Received: final_sparsity={value!r}"
    )


@pytest.mark.parametrize(
    "options, name, least",
    [
        ({"begin_step": -1}, "begin_step", 0),
        ({"begin_step": 5, "end_step": 5}, "end_step", 6),
        ({"frequency": 0}, "frequency", 1),
    ],
)
def test_steps(options, name, least):
    with pytest.raises(ValueError) as error:
        MagnitudePruning(
            **{"final_sparsity": 0.5, "begin_step": 0, "end_step": 9, **options}
        )
    assert str(error.value) == (
        f"Invalid value for argument {name}. Expected an integer >= {least}. "
        f"Received: {name}={options[name]}"
    )


def test_by():
    with pytest.raises(ValueError) as error:
        MagnitudePruning(0.5, 0, 1, by="layer")
    assert str(error.value) == (
        "Invalid value for argument by. Expected one of {'weight', 'filter'}. "
        "Received: by='layer'"
    )


def test_structures_are_of_filters():
    with pytest.raises(ValueError) as error:
        MagnitudePruning(0.5, 0, 1, by="weight", structures=[])
    assert str(error.value) == (
        "Invalid value for argument by. Expected None or 'filter' with "
        "structures, whose units go as a whole. Received: by='weight'"
    )
    assert MagnitudePruning(0.5, 0, 1, structures=[]).by == "filter"
    assert MagnitudePruning(0.5, 0, 1).by == "weight"


def test_exclude_is_a_tuple():
    with pytest.raises(TypeError) as error:
        MagnitudePruning(0.5, 0, 1, exclude="logits")
    assert str(error.value) == (
        "Invalid type for argument exclude. Expected a tuple of patterns. "
        "Received: exclude='logits'"
    )


def test_exclude_must_match():
    with pytest.raises(ValueError) as error:
        _fit(_model(), MagnitudePruning(0.5, 0, 1, exclude=["fc*"]))
    assert str(error.value) == (
        "Invalid value for argument exclude. Expected patterns that match one "
        "of ['conv/kernel', 'hidden/kernel', 'logits/kernel']. "
        "Received: 'fc*'"
    )
