import collections
import re
import shutil

import keras
import pytest

from models.mlp import mlp
from models.run import workdir


def test_writable_folder_is_made_and_left_empty(tmp_path):
    folder = tmp_path / "runs" / "one"
    workdir.check_writable(folder)
    assert list(folder.iterdir()) == []


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, reason in (
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "run", "Not a directory"),
    ):
        message = (
            f"Cannot write to workdir {folder}. {reason}. Choose another "
            "--workdir, or make room and permissions there."
        )
        with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
            workdir.check_writable(folder)


def test_full_disk(tmp_path, monkeypatch):
    model = mlp(input_shape=(1000,), hidden=(250,), num_classes=2)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    usage = collections.namedtuple("usage", "total used free")
    one = 4 * (1000 * 250 + 250 + 250 * 2 + 2)
    needed = 3 * 2 * one + one  # two checkpoints, one being written, the model

    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(0, 0, needed + 1000)
    )
    workdir.check_space(tmp_path, model, checkpoints=2)

    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 3e6))
    message = (
        f"Too little space for checkpoints in workdir {tmp_path}. "
        "Expected 7.0 MB. Received: 3.0 MB free"
    )
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        workdir.check_space(tmp_path, model, checkpoints=2)


def test_saved_model_has_no_regularizers(tmp_path):
    model = mlp(input_shape=(5,), hidden=(4,))
    penalty = keras.regularizers.L2(0.1)
    model.get_layer("hidden1").kernel_regularizer = penalty
    workdir.save_model(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.losses
    # The model that is trained keeps them.
    assert model.get_layer("hidden1").kernel_regularizer is penalty


def test_saved_model_has_the_weights_and_no_optimizer(tmp_path):
    model = mlp(input_shape=(5,), hidden=(4,), dropout=0.5)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    workdir.save_model(model, tmp_path / "model.keras")
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.name == "mlp"
    assert not hasattr(loaded, "optimizer")
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert (a == b).all()
