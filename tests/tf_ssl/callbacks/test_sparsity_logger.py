"""What SparsityLogger adds to the logs and writes for TensorBoard."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from tf_ssl.callbacks import SparsityLogger
from tf_ssl.structures.structure import Slice, Structure, Structures

X = np.zeros([8, 4, 4, 1], np.float32)
Y = np.zeros([8, 2], np.float32)


def _model():
    model = keras.Sequential(
        [
            keras.Input([4, 4, 1]),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="fc"),
        ]
    )
    conv = np.ones([3, 3, 1, 2], np.float32)
    conv[0] = 0.0  # 3 of 9 columns
    conv[..., 0] = 0.0  # 1 of 2 rows: 12 of 18 elements
    model.layers[0].kernel.assign(conv)
    model.layers[2].kernel.assign(np.ones([8, 2]))
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    return model


def _structure(model):
    units = np.arange(2).reshape(1, 1, 1, 2)
    return Structure(
        "conv/filters", 2, (Slice(model.layers[0].kernel, "out", units),)
    )


def _fit(model, callback, epochs=2):
    return model.fit(X, Y, 2, epochs, verbose=0, callbacks=[callback]).history


def _events(folder):
    found = event_accumulator.EventAccumulator(
        str(folder), {event_accumulator.TENSORS: 0}
    )
    found.Reload()
    return {
        tag: {event.step: event.tensor_proto for event in found.Tensors(tag)}
        for tag in found.Tags()["tensors"]
    }


def test_totals_in_the_logs():
    model = _model()
    history = _fit(
        model, SparsityLogger(structures=[_structure(model)], block=(2, 1))
    )
    del history["loss"]
    assert history == {
        "zero_elements": [12 / 34] * 2,
        "zero_columns": [3 / 17] * 2,
        "zero_rows": [1 / 4] * 2,
        "zero_blocks": [3 / 17] * 2,
        "dead_units": [1 / 2] * 2,
    }


def test_structures_are_looked_through_once():
    """What find_structures returns is asked as a whole, a list one by one."""
    model = _model()
    structure = _structure(model)
    asked = []
    structure.is_dead = lambda threshold: asked.append("one") or np.ones(2)

    def of_all(threshold):
        asked.append(threshold)
        return {"conv/filters": np.array([True, False])}

    structures = Structures([structure], dead_of_all=of_all)
    history = _fit(model, SparsityLogger(structures=structures, threshold=0.5))
    assert history["dead_units"] == [0.5] * 2
    assert asked == [0.5] * 2
    history = _fit(model, SparsityLogger(structures=list(structures)))
    assert history["dead_units"] == [1.0] * 2
    assert asked == [0.5] * 2 + ["one"] * 2


def test_threshold():
    model = _model()
    history = _fit(
        model,
        SparsityLogger(structures=[_structure(model)], threshold=100.0),
        epochs=1,
    )
    assert history["zero_elements"] == history["dead_units"] == [1.0]


def test_tensorboard(tmp_path):
    model = _model()
    _fit(
        model,
        SparsityLogger(tmp_path, [_structure(model)], pictures=True),
        epochs=3,
    )
    events = _events(tmp_path)
    assert sorted(events) == [
        "dead_units/conv/filters",
        "filter_shapes/conv/kernel",
        "sparsity/conv/kernel/column",
        "sparsity/conv/kernel/element",
        "sparsity/conv/kernel/row",
        "sparsity/fc/kernel/column",
        "sparsity/fc/kernel/element",
        "sparsity/fc/kernel/row",
        "zeros/conv/kernel",
        "zeros/fc/kernel",
    ]
    assert all(list(steps) == [0, 1, 2] for steps in events.values())
    row = events["sparsity/conv/kernel/row"][2]
    assert tf.make_ndarray(row) == 0.5
    width, height, png = events["zeros/conv/kernel"][2].string_val
    assert (width, height) == (b"9", b"2")
    assert png[1:4] == b"PNG"


@pytest.mark.parametrize(
    "freq, steps_per_execution, expected",
    [(1, None, list(range(1, 9))), (3, None, [3, 6]), (3, 4, [4, 8])],
)
def test_every_so_many_batches(tmp_path, freq, steps_per_execution, expected):
    model = _model()
    model.compile(
        "sgd",
        "mse",
        steps_per_execution=steps_per_execution or 1,
        run_eagerly=steps_per_execution is None,
        jit_compile=False,
    )
    history = _fit(model, SparsityLogger(tmp_path, freq=freq))
    steps = _events(tmp_path)["sparsity/conv/kernel/row"]
    assert list(steps) == expected
    assert len(history["zero_rows"]) == 2


@pytest.mark.parametrize("freq", [0, "batch", 1.5, True])
def test_freq(freq):
    with pytest.raises(ValueError) as error:
        SparsityLogger(freq=freq)
    assert str(error.value) == (
        "Invalid value for argument freq. Expected 'epoch' or an integer >= 1: "
        f"batches. Received: freq={freq!r}"
    )


def test_pictures_need_a_folder():
    with pytest.raises(ValueError) as error:
        SparsityLogger(pictures=True)
    assert str(error.value) == (
        "Invalid value for argument log_dir. Expected a folder for the "
        "pictures. Received: log_dir=None, pictures=True"
    )


def test_structures():
    with pytest.raises(TypeError) as error:
        SparsityLogger(structures=["conv"])
    assert str(error.value) == (
        "Invalid type for argument structures. Expected what "
        "tf_ssl.find_structures(model) returns. Received: 'conv' among them"
    )
