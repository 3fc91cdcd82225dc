"""MetricsLog, Progress, StopAtStep and Throughput in a real `fit`."""

import json
import re

import keras
import numpy as np

from models import run
from models.run import metrics_log


def fit(callbacks, epochs=2, initial_epoch=0):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(
        keras.optimizers.SGD(0.125), "mse", metrics=["mae"], jit_compile=False
    )
    x = np.ones((40, 3), "float32")
    model.fit(
        x,
        x[:, :1],
        batch_size=4,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=callbacks,
        verbose=0,
    )
    return model


def test_stop_at_step_within_an_epoch():
    stop = run.StopAtStep(13)
    model = fit([stop], epochs=5)
    assert int(model.optimizer.iterations) == 13


def test_stop_at_step_goes_on_counting():
    model = fit([run.StopAtStep(13, first_step=10)], 5, initial_epoch=1)
    assert int(model.optimizer.iterations) == 3


def test_throughput(tmp_path):
    path = tmp_path / "metrics.jsonl"
    fit(
        [
            run.StopAtStep(25, first_step=10),
            run.Throughput(batch_size=8, first_step=10),
            run.MetricsLog(path, first_epoch=1),
        ],
        epochs=5,
        initial_epoch=1,
    )
    entries = metrics_log.read(path)
    assert [entry["epoch"] for entry in entries] == [2, 3]
    assert [entry["step"] for entry in entries] == [20, 25]
    for entry, steps in zip(entries, (10, 5), strict=True):
        assert entry["learning_rate"] == 0.125
        # The training steps are a part of the epoch's seconds.
        assert entry["images_per_second"] > 8 * steps / entry["seconds"]


def test_metrics_log_drops_later_epochs_when_it_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"epoch": 1, "loss": 7.0}\n{"epoch": 2, "loss": 6.0}\n{"epoch": 3, "l'
    )
    fit([run.MetricsLog(path, first_epoch=1)], epochs=3, initial_epoch=1)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2, 3]
    assert entries[0] == {"epoch": 1, "loss": 7.0}
    assert entries[1]["loss"] != 6.0


def test_metrics_log_of_a_new_run_is_a_new_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "loss": 7.0}\n')
    fit([run.MetricsLog(path)], epochs=1)
    (entry,) = metrics_log.read(path)
    assert set(entry) == {"epoch", "loss", "mae"}
    assert entry["loss"] != 7.0


def test_metrics_log_writes_nan_and_infinity_as_words(tmp_path):
    log = run.MetricsLog(tmp_path / "metrics.jsonl")
    log.on_epoch_end(0, {"loss": np.float32("nan"), "x": -np.inf})
    assert metrics_log.read(log.path) == [
        {"epoch": 1, "loss": "nan", "x": "-inf"}
    ]


LOGS = {
    "loss": 0.25,
    "accuracy": 0.5,
    "val_accuracy": 0.75,
    "images_per_second": 1234.5,
    "bits_per_element": 2.4,
    "zero_fraction": 0.812,
}


def progress(is_terminal, monkeypatch):
    """What is seen of two epochs of two steps, five seconds a step."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    seen = []
    callback = run.Progress(
        2,
        2,
        8,
        seen.append,
        is_terminal=is_terminal,
        first_epoch=0,
        columns=run.tasks.Images.columns,
    )
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for batch in range(2):
            now[0] += 5.0
            callback.on_train_batch_end(batch, {"loss": 0.5})
        callback.on_epoch_end(epoch, LOGS)
    return "".join(seen)


def test_progress_in_a_log(monkeypatch):
    assert progress(False, monkeypatch) == (
        "epoch 1/2  step 2/2  loss 0.5000  2 images/s  0:10 left\n"
        "epoch 1/2  loss 0.2500  accuracy 0.5000  val_accuracy 0.7500  "
        "1,234 images/s  2.40 bits/element  81.2% zeros  0:10 left\n"
        "epoch 2/2  step 2/2  loss 0.5000  2 images/s\n"
        "epoch 2/2  loss 0.2500  accuracy 0.5000  val_accuracy 0.7500  "
        "1,234 images/s  2.40 bits/element  81.2% zeros\n"
    )


def test_progress_shows_sparsity(monkeypatch):
    sparse = {"zero_rows": 0.25, "zero_columns": 0.5}
    monkeypatch.setattr(f"{__name__}.LOGS", LOGS | sparse)
    assert "  81.2% zeros  25.0% zero rows  50.0% zero columns\n" in progress(
        False, monkeypatch
    )


def test_progress_on_a_terminal(monkeypatch):
    text = progress(True, monkeypatch)
    assert text.count("\n") == 2  # one line an epoch stays
    assert re.findall(r"step (\d)/2", text) == ["1", "2", "1", "2"]
    lines = text.split("\n")[0].split("\r")[1:]
    for before, after in zip(lines, lines[1:], strict=False):
        assert len(after) >= len(before.rstrip())  # nothing old shows through


def test_progress_shows_units_and_words(monkeypatch):
    seen = []
    monkeypatch.setattr("time.perf_counter", lambda: 1.0)
    callback = run.Progress(
        1, 1, 8, seen.append, unit="words", columns=(("perplexity", "{:.2f}"),)
    )
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback._done = 1
    callback.on_epoch_end(
        0,
        {
            "perplexity": 12.345,
            "loss": 1.0,
            "words_per_second": 1000.0,
            "units_lstm1": 7,
            "units_lstm2": 12,
        },
    )
    assert seen == ["epoch 1/1  perplexity 12.35  1,000 words/s  7-12 units\n"]
