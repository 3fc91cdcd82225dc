"""train.py with forces, rank clipping, SmoothOut, adaptation, large batches."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import eval as evaluation
import train
from models.run import metrics_log
from tests import fake_images
from tests.test_train import options_of, weights


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return fake_images.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture
def start(data_dir, tmp_path):
    def start(*arguments, name="run"):
        workdir = tmp_path / name
        train.train(
            options_of(
                *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
                *("--dataset=fake_images", "--batch_size=10", "--epochs=2"),
                *("--compression=none", "--model=mlp", *arguments),
            )
        )
        return pathlib.Path(workdir)

    return start


def test_force_and_rank_clipping(start, capsys):
    flags_of_it = ("--force=0.1", "--force_layers=hidden*")
    workdir = start(*flags_of_it, "--rank_clipping=0.5")
    assert "l1 force 0.1, on hidden*, ranks clipped to energy 0.5" in (
        capsys.readouterr().out
    )
    assert metrics_log.read(workdir / "metrics.jsonl")[-1]["rank_share"] < 0.9
    kernel = keras.saving.load_model(workdir / "model.keras").get_layer(
        "hidden2"
    )
    values = np.linalg.svd(kernel.kernel.numpy())[1]
    assert (values < 1e-5 * values[0]).mean() > 0.1


def test_smooth_out_and_large_batches(start, capsys):
    plain = start(name="plain")
    noisy = start("--smooth_out=0.05", "--ghost_batches=2", name="noisy")
    again = start("--smooth_out=0.05", "--ghost_batches=2", name="again")
    assert "smooth out   0.05, uniform, adaptive none" in (
        capsys.readouterr().out
    )
    for one, same, other in zip(
        weights(noisy), weights(again), weights(plain), strict=True
    ):
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()
    large = start(
        *("--optimizer=lamb", "--lr_base_batch=5", "--lr_warmup_steps=100"),
        *("--learning_rate=0.01", "--lr_scaling=linear"),
        name="large",
    )
    # The rate of the 20th of 100 steps, towards twice --learning_rate.
    entry = metrics_log.read(large / "metrics.jsonl")[-1]
    assert entry["learning_rate"] == pytest.approx(0.02 * 0.2, rel=0.06)


def test_domain_adaptation(start, capsys, data_dir):
    workdir = start(
        *("--target_dataset=fake_images", "--target_shift=textured"),
        *("--learning_rate=0.05", "--epochs=6"),
    )
    out = capsys.readouterr().out
    assert "fake_images:1.2.0 to fake_images:1.2.0 textured" in out
    # What is saved is the network alone.
    model = keras.saving.load_model(workdir / "model.keras")
    assert model.name == "mlp" and model.input_shape == (None, 16, 16, 1)
    entry = metrics_log.read(workdir / "metrics.jsonl")[-1]
    options = flags.FlagValues()
    evaluation.define_flags(options)
    options(["eval.py", f"--workdir={workdir}"])
    # Tests are of the target, and during training alike.
    result = evaluation.evaluate(options)
    assert result["accuracy"] == pytest.approx(entry["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--force=0.1", "--force_ratio=0.1"],
            "Pass --force, which is fixed, or --force_ratio, which follows the "
            "gradient.",
        ),
        (
            [
                *("--model=ptb_lstm", "--dataset=words"),
                "--target_dataset=fake_images",
            ],
            "Flag --target_dataset is for models of images. Received: "
            "--model=ptb_lstm",
        ),
        (
            ["--target_dataset=nothing"],
            "Expected a dataset of",
        ),
        (
            ["--target_dataset=mnist", "--target_data_dir=data"],
            "Source fake_images:1.2.0 and target mnist:3.0.1 differ in image "
            "shape: (16, 16, 1) and (28, 28, 1). Expected the same, for one "
            "network learns from both",
        ),
        (
            [
                *("--target_dataset=fake_images", "--target_shift=textured"),
                *("--augment=cifar_pad", "--image_size=16"),
            ],
            "--target_shift=textured needs images in [0, 1]: --augment=none. "
            "Received: --augment=cifar_pad",
        ),
    ],
)
def test_what_is_refused_before_work(start, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as error:
        start(*arguments)
    assert str(error.value).startswith("train.py: ")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_threads_are_set_before_images_are_read(tmp_path):
    # In a process of its own: here TensorFlow runs already.
    for split in ("train", "test"):
        image = tf.io.encode_png(np.zeros([28, 28, 1], "uint8"))
        tf.io.write_file(str(tmp_path / split / "one" / "0.png"), image)
    done = subprocess.run(
        [
            *(sys.executable, "train.py", "--dataset=folder"),
            *(f"--data_dir={tmp_path}", f"--workdir={tmp_path}/run"),
            *("--epochs=1", "--batch_size=1", "--intra_threads=1"),
            f"--init_from={tmp_path}/missing",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "missing" in done.stderr  # ends once the data are there
    assert "TensorFlow runs already" not in done.stderr
