import pathlib
import re
import shutil

import keras
import pytest
from absl import flags

import tf_ssl
import train
from tests import fake_images
from tests.test_train import options_of
from tf_ssl.sweep.runs import read_result

# `import eval` would hide Python's own function of that name.
evaluation = __import__("eval")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return fake_images.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A finished run; copy it before changing it."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    train.train(
        options_of(
            f"--workdir={workdir}",
            f"--data_dir={data_dir}",
            "--dataset=fake_images",
            "--model=mlp",
            "--batch_size=10",
            "--epochs=3",
        )
    )
    return workdir


def evaluate(*arguments):
    values = flags.FlagValues()
    evaluation.define_flags(values)
    values(["eval.py", *arguments])
    return evaluation.evaluate(values)


def exit_message(*arguments):
    with pytest.raises(SystemExit) as exit:
        evaluate(*arguments)
    return exit.value.code


def test_finished_run(finished, capsys):
    result = evaluate(f"--workdir={finished}")
    out = capsys.readouterr().out
    assert 'Model: "mlp"' in out
    assert "logits (Dense)" in out
    assert out.endswith(
        f"model       {finished}/model.keras\n"
        "parameters  280,004\n"
        "data        fake_images:1.2.0, 21 test images\n"
        f"test loss   {result['loss']:.4f}\n"
        f"test error  {1 - result['accuracy']:.2%}\n"
        f"accuracy    {result['accuracy']:.2%}\n"
    )


def test_result_is_that_of_training(finished):
    last = train.run.metrics_log.read(finished / "metrics.jsonl")[-1]
    result = evaluate(f"--workdir={finished}", "--eval_batch_size=4")
    assert result["accuracy"] == pytest.approx(last["val_accuracy"])
    assert result["loss"] == pytest.approx(last["val_loss"], rel=1e-5)


def test_run_that_is_not_finished(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "run")
    (workdir / "model.keras").unlink()
    want = evaluate(f"--workdir={finished}")
    assert evaluate(f"--workdir={workdir}") == pytest.approx(want)
    assert (
        f"model       {workdir}/checkpoints/epoch-00003 "
        "(not finished: 3 epoch(s) done)\n"
    ) in capsys.readouterr().out


def test_shrunk_model(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "run")
    model = keras.saving.load_model(workdir / "model.keras")
    tf_ssl.find_structures(model)["hidden1/units"].zero(range(400))
    model.save(workdir / "model.keras")
    want = evaluate(f"--workdir={workdir}")
    got = evaluate(f"--workdir={workdir}", "--shrink")
    assert got == pytest.approx(want, rel=1e-5)
    out = capsys.readouterr().out
    assert "hidden1/units: 500 -> 100 units\n" in out
    assert "multiply-adds of one example" in out  # the comparison
    assert f"model       {workdir}/shrunk.keras\n" in out
    shrunk = keras.saving.load_model(workdir / "shrunk.keras")
    assert shrunk.get_layer("hidden1").units == 100
    point = read_result(workdir, 0.1)
    assert point.error == pytest.approx(1 - got["accuracy"])
    assert point.parameters == shrunk.count_params()
    assert point.multiply_adds == sum(tf_ssl.multiply_adds(shrunk).values())
    assert point.latency_ms > 0


def test_latency(finished, capsys):
    evaluate(f"--workdir={finished}", "--latency")
    assert re.search(
        r"^latency     [\d.]+ ± [\d.]+ ms, batch 1\n"
        r"latency     [\d.]+ ± [\d.]+ ms, batch 32\n\Z",
        capsys.readouterr().out,
        re.M,
    )


@pytest.mark.parametrize(
    "format, name", [("savedmodel", "savedmodel"), ("tflite", "model.tflite")]
)
def test_export(finished, tmp_path, capsys, format, name):
    workdir = shutil.copytree(finished, tmp_path / "run")
    evaluate(f"--workdir={workdir}", f"--export={format}")
    assert (workdir / name).exists()
    text = capsys.readouterr().out.splitlines()[-1]
    before, difference = text.rsplit(" ", 1)
    assert before == (
        f"export      {workdir}/{name}, largest difference of outputs"
    )
    assert float(difference) <= 1e-5


def test_moved_data(finished, data_dir, tmp_path):
    moved = shutil.copytree(data_dir, tmp_path / "moved")
    want = evaluate(f"--workdir={finished}")
    got = evaluate(f"--workdir={finished}", f"--data_dir={moved}")
    assert got == pytest.approx(want)


def test_no_workdir(tmp_path):
    workdir = pathlib.Path(tmp_path) / "none"
    assert exit_message(f"--workdir={workdir}") == (
        f"eval.py: No such workdir: {workdir}"
    )


def test_no_flags(tmp_path):
    assert exit_message(f"--workdir={tmp_path}") == (
        f"eval.py: No flags.txt in {tmp_path}. Expected a workdir of train.py, "
        "with flags.txt and model.keras or checkpoints/"
    )


def test_no_model(finished, tmp_path):
    shutil.copy(finished / "flags.txt", tmp_path)
    assert exit_message(f"--workdir={tmp_path}") == (
        f"eval.py: No model in {tmp_path}: neither model.keras nor a "
        "checkpoint. The first checkpoint comes at the end of the first epoch"
    )
