import json
import re

import keras
import numpy as np
import pytest

import tf_terngrad as tg
from tf_terngrad import checkpoint


def make_model(units=3, seed=1):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(units, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    model.compile(
        tg.DistributedOptimizer(
            keras.optimizers.SGD(0.1, momentum=0.9), tg.TernGrad(seed=3)
        ),
        "mse",
        jit_compile=False,
        auto_scale_loss=False,
    )
    return model


def train(model, epochs, initial_epoch=0, callbacks=()):
    x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
    model.fit(
        x,
        x[:, :2],
        batch_size=8,
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def is_stream(variable):
    return "seed_generator" in variable.path


def values(model):
    variables = model.variables + model.optimizer.variables
    return [v.numpy() for v in variables]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_resumed_run_equals_uninterrupted_run_to_the_bit(tmp_path):
    whole = make_model()
    train(whole, 4)

    train(make_model(), 2, callbacks=[checkpoint.Checkpoint(tmp_path)])
    resumed = make_model(seed=2)
    epoch = checkpoint.restore(tmp_path, resumed)
    assert epoch == 2
    train(resumed, 4, initial_epoch=epoch)

    assert_equal(values(whole), values(resumed))


def test_restore_without_checkpoint_is_epoch_zero(tmp_path):
    model = make_model()
    before = [v.numpy() for v in model.variables]
    assert checkpoint.restore(tmp_path / "none", model) == 0
    assert_equal(before, [v.numpy() for v in model.variables])


def test_last_two_stay(tmp_path):
    train(make_model(), 4, callbacks=[checkpoint.Checkpoint(tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "epoch-00003",
        "epoch-00004",
    ]
    assert sorted(p.name for p in checkpoint.latest(tmp_path).iterdir()) == [
        "manifest.json",
        "rank-00000-of-00001.npz",
        "shared.npz",
    ]


def test_half_written_checkpoint_is_ignored_and_removed(tmp_path):
    model = make_model()
    checkpoint.save(tmp_path, model, 1)
    for name in ("epoch-00002.writing", "epoch-00000.deleting"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shared.npz").write_bytes(b"half")
    assert checkpoint.restore(tmp_path, model) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-00001"]


def test_same_epoch_is_replaced(tmp_path):
    model = make_model()
    checkpoint.save(tmp_path, model, 1)
    model.trainable_variables[0].assign(np.full((4, 3), 7.0))
    checkpoint.save(tmp_path, model, 1)
    other = make_model()
    assert checkpoint.restore(tmp_path, other) == 1
    assert other.trainable_variables[0].numpy()[0, 0] == 7.0


def test_misfit_names_the_variable(tmp_path):
    checkpoint.save(tmp_path, make_model(units=3), 1)
    folder = tmp_path / "epoch-00001"
    message = (
        f"Worker 0 cannot read checkpoint {folder}. ValueError: "
        f"{folder}/shared.npz does not fit the model. Expected variable "
        "hidden/kernel of shape (4, 5), float32. Received: variable "
        "hidden/kernel of shape (4, 3), float32"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        checkpoint.restore(tmp_path, make_model(units=5))


def test_missing_variable_is_named(tmp_path):
    model = make_model()
    plain = keras.optimizers.SGD(0.1)
    model.optimizer = tg.DistributedOptimizer(plain, tg.TernGrad(seed=3))
    checkpoint.save(tmp_path, model, 1)
    folder = tmp_path / "epoch-00001"
    with pytest.raises(RuntimeError) as error:
        checkpoint.restore(tmp_path, make_model())
    # Keras numbers the optimizers of a process.
    assert re.sub(r"sgd(_\d+)?/", "sgd/", str(error.value)) == (
        f"Worker 0 cannot read checkpoint {folder}. ValueError: "
        f"{folder}/shared.npz does not fit the model. Expected variable "
        "sgd/hidden_kernel_momentum of shape (4, 3), float32. "
        "Received: no further variable"
    )


def test_misfit_changes_nothing(tmp_path):
    checkpoint.save(tmp_path, make_model(units=3), 1)
    model = make_model(units=5)
    before = [v.numpy() for v in model.variables]
    with pytest.raises(RuntimeError):
        checkpoint.restore(tmp_path, model)
    assert_equal(before, [v.numpy() for v in model.variables])


def test_missing_rank_file(tmp_path):
    model = make_model()
    checkpoint.save(tmp_path, model, 1)
    folder = tmp_path / "epoch-00001"
    (folder / "rank-00000-of-00001.npz").unlink()
    message = (
        f"Worker 0 cannot read checkpoint {folder}. FileNotFoundError: "
        f"Checkpoint {folder} of 1 worker(s) lacks rank-00000-of-00001.npz. "
        "Put it back, or remove the whole folder to go on from the checkpoint "
        "before."
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        checkpoint.restore(tmp_path, model)


def test_other_number_of_workers(tmp_path, caplog):
    model = make_model()
    train(model, 1, callbacks=[checkpoint.Checkpoint(tmp_path)])
    folder = tmp_path / "epoch-00001"
    # As two workers would have left it.
    (folder / "manifest.json").write_text(json.dumps({"epoch": 1, "ranks": 2}))
    (folder / "rank-00000-of-00001.npz").rename(
        folder / "rank-00000-of-00002.npz"
    )
    other = make_model(seed=9)
    streams = [v.numpy() for v in other.non_trainable_variables if is_stream(v)]
    with caplog.at_level("WARNING", logger="absl"):
        assert checkpoint.restore(tmp_path, other) == 1
    assert caplog.messages == [
        f"Checkpoint {folder} was written by 2 worker(s), now there are 1: "
        "all take the moving statistics of worker 0 and start new random "
        "streams."
    ]
    for mine, theirs in zip(other.variables, model.variables, strict=True):
        if is_stream(mine):
            np.testing.assert_array_equal(mine.numpy(), streams.pop(0))
        else:
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_extra_variables_and_bfloat16(tmp_path):
    values = np.linspace(-1, 1, 5)
    residual = keras.Variable(values, dtype="bfloat16", name="residual")
    want = residual.numpy()
    model = make_model()
    checkpoint.save(tmp_path, model, 1, extra={"residual": residual})
    residual.assign(np.zeros(5))
    checkpoint.restore(tmp_path, model, extra={"residual": residual})
    np.testing.assert_array_equal(residual.numpy(), want)


def test_error_feedback_is_each_workers_own(tmp_path):
    def make():
        model = keras.Sequential([keras.Input([8]), keras.layers.Dense(8)])
        optimizer = tg.DistributedOptimizer(
            keras.optimizers.SGD(0.1), tg.TernGrad(error_feedback=True)
        )
        model.compile(optimizer, "mse", jit_compile=False)
        return model

    model = make()
    model.optimizer.build(model.trainable_variables)
    residual = model.optimizer.feedback.residuals[0][0]
    residual.assign(np.arange(64.0).reshape(8, 8))
    checkpoint.save(tmp_path, model, 1)
    (folder,) = tmp_path.iterdir()
    own = np.load(folder / "rank-00000-of-00001.npz")
    assert sum(own[name].size for name in own.files) >= 64 + 8
    again = make()
    checkpoint.restore(tmp_path, again)
    np.testing.assert_array_equal(
        again.optimizer.feedback.residuals[0][0], residual
    )


def test_sums_of_micro_steps_are_each_workers_own(tmp_path):
    def make():
        model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
        optimizer = tg.DistributedOptimizer(
            keras.optimizers.SGD(0.1),
            tg.TernGrad(),
            gradient_accumulation_steps=2,
        )
        model.compile(optimizer, "mse", jit_compile=False)
        return model

    model = make()
    x, y = np.ones([4, 3], "float32"), np.ones([4, 2], "float32")
    model.fit(x[:1], y[:1], verbose=0)  # one micro-step of two
    sums = model.optimizer.worker_variables
    assert any(np.any(v.numpy()) for v in sums)
    checkpoint.save(tmp_path, model, 1)
    (folder,) = tmp_path.iterdir()
    with np.load(folder / "rank-00000-of-00001.npz") as own:
        assert sum(own[name].size for name in own.files) >= 8
    again = make()
    checkpoint.restore(tmp_path, again)
    for a, b in zip(again.optimizer.worker_variables, sums, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_unwritable_directory(tmp_path):
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "checkpoints"
    with pytest.raises(RuntimeError) as error:
        checkpoint.save(directory, make_model(), 1)
    assert str(error.value) == (
        f"Worker 0 cannot write checkpoint {directory}/epoch-00001. "
        "NotADirectoryError: [Errno 20] Not a directory: "
        f"'{directory}/epoch-00001.writing'"
    )


def test_weights_load_into_a_model_without_optimizer(tmp_path):
    model = make_model()
    checkpoint.save(tmp_path, model, 1)
    plain = keras.models.clone_model(model)
    assert checkpoint.load(checkpoint.latest(tmp_path), plain) == 1
    assert_equal(plain.get_weights(), model.get_weights())


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_keep_is_checked(keep):
    message = (
        "Invalid value for argument keep. Expected an integer >= 1. "
        f"Received: keep={keep!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checkpoint.Checkpoint("unused", keep=keep)
