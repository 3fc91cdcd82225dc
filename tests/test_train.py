import pathlib
import re
import sys

import keras
import numpy as np
import pytest
from absl import flags

import models
import train
from models.run import metrics_log
from tests import fake_images


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return fake_images.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def forget_models():
    """Graphs of earlier tests would slow down every import and collection."""
    yield
    keras.utils.clear_session()


@pytest.fixture
def start(data_dir, tmp_path):
    """Trains with these flags in the workdir; see `options_of`."""

    def start(*arguments, workdir=None):
        workdir = tmp_path / "run" if workdir is None else workdir
        train.train(
            options_of(
                f"--workdir={workdir}",
                f"--data_dir={data_dir}",
                "--dataset=fake_images",
                "--batch_size=10",
                *arguments,
            )
        )
        return pathlib.Path(workdir)

    return start


def options_of(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train.py", *arguments])
    return values


MLP = ("--model=mlp", "--dropout=0.25", "--lr_schedule=cosine")


def weights(workdir):
    return keras.saving.load_model(workdir / "model.keras").get_weights()


def interrupt_after(epoch, monkeypatch):
    """Lets training die when an epoch's checkpoint is written."""
    save = train.checkpoint.save

    def save_and_die(directory, model, epoch_now, *args):
        save(directory, model, epoch_now, *args)
        if epoch_now == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.checkpoint, "save", save_and_die)


def test_end_to_end(start, capsys):
    workdir = start("--model=lenet", "--epochs=12", "--learning_rate=0.05")
    assert sorted(p.name for p in workdir.iterdir()) == [
        "checkpoints",
        "flags.txt",
        "logs",
        "metrics.jsonl",
        "model.keras",
    ]
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert [entry["epoch"] for entry in entries] == list(range(1, 13))
    assert [entry["step"] for entry in entries] == list(range(10, 130, 10))
    assert set(entries[-1]) >= {
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "images_per_second",
        "bits_per_element",
        "zero_fraction",
        "saturation",
        "learning_rate",
        "seconds",
    }
    assert entries[-1]["val_accuracy"] == 1.0
    assert any((workdir / "logs" / "train").iterdir())
    out = capsys.readouterr().out
    assert re.search(r"^model +lenet, [\d,]+ parameters$", out, re.M)
    assert re.search(
        r"^workers +1, 10 images each a step, 10 in all$", out, re.M
    )
    assert re.search(r"^compression +TernGrad\(clip_factor=2.5", out, re.M)
    assert len(re.findall(r"^epoch \d+/12  loss", out, re.M)) == 12
    assert out.endswith(f"Wrote {workdir}/model.keras\n")


@pytest.mark.parametrize("compression", ["terngrad", "fp16", "none"])
def test_resumed_run_equals_uninterrupted_run_to_the_bit(
    start, tmp_path, monkeypatch, compression, capsys
):
    arguments = (*MLP, "--epochs=4", f"--compression={compression}")
    whole = start(*arguments, workdir=tmp_path / "whole")

    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            start(*arguments)
    resumed = start(*arguments)

    assert "Going on after epoch 2 of 4." in capsys.readouterr().out
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    entries, wanted = (
        metrics_log.read(each / "metrics.jsonl") for each in (resumed, whole)
    )
    for entry, want in zip(entries, wanted, strict=True):
        for timing in ("seconds", "images_per_second"):
            entry.pop(timing)
            want.pop(timing)
        assert entry == want


def test_sparsity_is_learned_and_held(start, tmp_path, monkeypatch, capsys):
    plain = ("--model=mlp", "--compression=none", "--epochs=2")
    dense = start(*plain, workdir=tmp_path / "dense")
    entries = metrics_log.read(dense / "metrics.jsonl")
    assert not {"zero_rows", "group_lasso"} & set(entries[-1])

    # A few steps: most inputs are all but gone already.
    model = keras.saving.load_model(dense / "model.keras")
    kernel = model.get_layer("hidden1").kernel
    faint = np.arange(256) % 4 > 0
    kernel.assign(kernel.numpy() * np.where(faint, 0.005, 1.0)[:, None])
    model.save(dense / "model.keras")

    sparse = (
        *plain,
        f"--init_from={dense}",
        "--lr_schedule=polynomial",
        "--group_lasso=hidden1@row+column:0.005",
        "--threshold=0.001",
    )
    whole = start(*sparse, workdir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            start(*sparse)
    workdir = start(*sparse)
    for a, b in zip(weights(whole), weights(workdir), strict=True):
        np.testing.assert_array_equal(a, b)
    out = capsys.readouterr().out
    assert re.search(f"^begins from  {dense}$", out, re.M)
    assert re.search(
        r"^sparsity     hidden1@row\+column:0.005, threshold 0.001$", out, re.M
    )
    entries = metrics_log.read(workdir / "metrics.jsonl")
    # The faint ones of which no image makes use.
    assert entries[-1]["zero_columns"] > 0.02
    assert any((workdir / "logs" / "sparsity").iterdir())

    tuned = start(
        *plain,
        f"--init_from={workdir}",
        "--freeze_zeros=element",
        workdir=tmp_path / "tuned",
    )
    kernels, before = (
        [w for w in weights(folder) if w.ndim == 2]
        for folder in (tuned, workdir)
    )
    for kernel, old in zip(kernels, before, strict=True):
        assert not kernel[old == 0].any()
        assert (kernel != old).any()


@pytest.mark.parametrize("update", ["subgradient", "proximal"])
def test_structures_and_several_workers(start, update):
    workdir = start(
        "--model=mlp",
        "--compression=none",
        "--epochs=3",
        "--lr_schedule=polynomial",
        "--structure_lasso=0.03",
        f"--structure_update={update}",
        "--virtual_workers=2",
        "--batch_size=5",
        "--accumulate=2",
    )
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert entries[-1]["group_lasso"] < entries[0]["group_lasso"]
    assert "dead_units" in entries[-1]


def test_virtual_workers(start, tmp_path, monkeypatch, capsys):
    arguments = (*MLP, "--epochs=4", "--virtual_workers=5", "--batch_size=2")
    whole = start(*arguments, workdir=tmp_path / "whole")
    assert re.search(
        r"^workers +5 \(5 in each of 1 processes\), 2 images each a step, 10 "
        "in all$",
        capsys.readouterr().out,
        re.M,
    )
    entries = metrics_log.read(whole / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [10, 20, 30, 40]
    assert entries[-1]["loss"] < entries[0]["loss"]
    # 18 digits of base 11 a word, 8/5 of which each of 5 workers sends.
    assert entries[-1]["bits_per_element"] == pytest.approx(
        8 / 5 * 64 / 18, rel=0.01
    )

    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            start(*arguments)
    resumed = start(*arguments)
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert exit_message(
        lambda: start(*arguments, "--virtual_workers=1")
    ).startswith(
        f"train.py: Workdir {tmp_path}/run holds a run with other flags: "
        "--virtual_workers=5 there, 1 here."
    )


def test_too_many_virtual_workers(start):
    assert exit_message(
        lambda: start(*MLP, "--epochs=1", "--virtual_workers=11")
    ) == (
        "train.py: Invalid value for argument batch_size. Expected 1 to 9 for "
        "100 examples on 11 worker(s). Received: batch_size=10"
    )


def test_seed_repeats_the_run(start, tmp_path):
    runs = [
        weights(
            start(*MLP, "--epochs=1", f"--seed={seed}", workdir=tmp_path / name)
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    for a, b in zip(runs[0], runs[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (runs[0][0] != runs[2][0]).any()


def test_steps_end_within_an_epoch(start):
    workdir = start(*MLP, "--steps=13")
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [10, 13]
    assert entries[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)


def test_finished_run_says_so(start, capsys):
    workdir = start(*MLP, "--epochs=1")
    before = weights(workdir)
    (workdir / "model.keras").unlink()  # killed before it was written
    capsys.readouterr()
    start(*MLP, "--epochs=1")
    assert capsys.readouterr().out.endswith(
        f"The run is finished: {workdir} holds epoch 1 of 1. Test it with: "
        f"python eval.py --workdir={workdir}\n"
    )
    for a, b in zip(before, weights(workdir), strict=True):
        np.testing.assert_array_equal(a, b)


def test_constant_rate_can_go_on_for_longer(start):
    arguments = ("--model=mlp", "--lr_schedule=constant")
    start(*arguments, "--epochs=1")
    workdir = start(*arguments, "--steps=25", "--eval_batch_size=7")
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert [entry["step"] for entry in entries] == [10, 20, 25]
    assert train.read_flags(workdir).steps == 25
    assert train.read_flags(workdir).epochs is None


def test_flags_are_read_back(start):
    workdir = start(
        *MLP, "--epochs=1", "--exempt=*/bias,logits/*", "--weight_decay=0.001"
    )
    read = options_of(f"--flagfile={workdir}/flags.txt")
    assert read.exempt == ["*/bias", "logits/*"]
    assert read.weight_decay == 0.001
    assert read.image_size == 0
    assert read.steps is None


def exit_message(action):
    with pytest.raises(SystemExit) as exit:
        action()
    return exit.value.code


def test_other_flags_on_resume_are_refused(start, tmp_path):
    start(*MLP, "--epochs=1")
    message = exit_message(
        lambda: start("--model=lenet", "--epochs=2", "--compression=none")
    )
    assert message == (
        f"train.py: Workdir {tmp_path}/run holds a run with other flags: "
        "--compression=terngrad there, none here; --dropout=0.25 there, None "
        "here; --lr_schedule=cosine there, constant here; --model=mlp there, "
        "lenet here. Choose another --workdir, or give the flags of that run "
        "(its flags.txt) to go on with it."
    )


def test_unknown_flag_in_flags_txt(start):
    workdir = start(*MLP, "--epochs=1")
    path = workdir / "flags.txt"
    path.write_text(path.read_text() + "--colour=blue\n")
    assert exit_message(lambda: start(*MLP, "--epochs=1")) == (
        f"train.py: Cannot read {path}. Unknown command line flag 'colour'"
    )


def test_unknown_dataset(start, data_dir):
    assert exit_message(
        lambda: start("--dataset=fake_imges", "--epochs=1")
    ) == (
        "train.py: Invalid value for argument name. Expected a dataset of "
        f"{data_dir} {{'fake_images'}} or of TFDS "
        "(https://www.tensorflow.org/datasets/catalog). Received: "
        "name='fake_imges'. Did you mean 'fake_images'?"
    )


def test_dataset_that_is_not_there(start, data_dir):
    assert exit_message(lambda: start("--dataset=cifar10", "--epochs=1")) == (
        "train.py: No prepared dataset 'cifar10' in data_dir. Looked in: "
        f"{data_dir}/cifar10. Fill it, where there is a network, with: "
        f"tfds build cifar10 --data_dir={data_dir}"
    )


def test_unwritable_workdir(start, tmp_path):
    (tmp_path / "file").write_text("")
    workdir = tmp_path / "file" / "run"
    assert exit_message(lambda: start("--epochs=1", workdir=workdir)) == (
        f"train.py: Cannot write to workdir {workdir}. Not a directory. Choose "
        "another --workdir, or make room and permissions there."
    )


def test_batch_too_large(start):
    assert exit_message(lambda: start("--epochs=1", "--batch_size=101")) == (
        "train.py: Invalid value for argument batch_size. Expected 1 to 100 "
        "for 100 examples on 1 worker(s). Received: batch_size=101"
    )


def test_pattern_that_fits_no_variable(start):
    message = exit_message(lambda: start("--epochs=1", "--exempt=nothing"))
    assert message.startswith("train.py: ")
    assert "nothing" in message


def test_group_lasso_that_cannot_be_read(start):
    message = exit_message(lambda: start("--epochs=1", "--group_lasso=filter"))
    assert message == (
        "train.py: Invalid value for flag --group_lasso. Expected "
        "[PATTERN@]KIND[+KIND...]:STRENGTH with a finite strength >= 0. "
        "Received: 'filter'"
    )


def test_group_lasso_on_nothing(start):
    message = exit_message(
        lambda: start("--epochs=1", "--group_lasso=dense*@row:0.1")
    )
    assert message.startswith("train.py: Invalid value for argument patterns.")
    assert message.endswith("Received: 'dense*'")


def test_weights_that_are_not_there(start, tmp_path):
    message = exit_message(
        lambda: start("--epochs=1", f"--init_from={tmp_path}/none")
    )
    assert message == (
        f"train.py: No weights to begin from: no such file: {tmp_path}/none. "
        "Expected a .keras file, or the workdir of a finished run of train.py"
    )


def test_dropout_of_a_model_without(start):
    message = exit_message(lambda: start("--epochs=1", "--dropout=0.5"))
    assert message == (
        "train.py: Invalid option for model 'lenet'. Expected one of "
        "{'input_shape', 'num_classes', 'seed'}. Received: 'dropout'"
    )


@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "--model=lenett",
            "flag --model=lenett: value should be one of "
            f"<{'|'.join(models.names())}>",
        ),
        (
            "--optimizer=sdg",
            "flag --optimizer=sdg: value should be one of "
            "<sgd|momentum|nesterov|adam|adamw|adadelta|lamb>",
        ),
        (
            "--lr_schedule=linear",
            "flag --lr_schedule=linear: value should be one of "
            "<constant|polynomial|cosine|exponential|multistep>",
        ),
        (
            "--compression=ternary",
            "flag --compression=ternary: value should be one of "
            "<none|fp16|terngrad>",
        ),
        (
            "--clip_mode=mine",
            "flag --clip_mode=mine: value should be one of <own|shared>",
        ),
        (
            "--exchange=ring",
            "flag --exchange=ring: value should be one of "
            "<auto|allgather|allreduce|alltoall>",
        ),
        (
            "--batch_size=0",
            "flag --batch_size=0: 0 is not a positive integer",
        ),
        (
            "--learning_rate=0",
            "flag --learning_rate=0.0: must be > 0",
        ),
        (
            "--virtual_workers=0",
            "flag --virtual_workers=0: 0 is not a positive integer",
        ),
        ("--momentum=1", "flag --momentum=1.0: must be in [0, 1)"),
        ("--lr_decay_rate=2", "flag --lr_decay_rate=2.0: must be in (0, 1]"),
        ("--lr_decay_epochs=0", "flag --lr_decay_epochs=0.0: must be > 0"),
        (
            "--lr_milestones=5,x",
            "flag --lr_milestones=['5', 'x']: must be steps such as "
            "32000,48000",
        ),
        (
            "--structure_update=dual",
            "flag --structure_update=dual: value should be one of "
            "<subgradient|proximal>",
        ),
        (
            "--freeze_zeros=all",
            "flag --freeze_zeros=all: value should be one of "
            "<none|element|group|block>",
        ),
        (
            "--depth_lasso=-1",
            "flag --depth_lasso=-1: -1.0 is not a non-negative number",
        ),
        (
            "--clip_factor=-1",
            "flag --clip_factor=-1: -1.0 is not a non-negative number",
        ),
        (
            "--steps=5",
            "flags epochs=1, steps=5: Pass one of --epochs and --steps.",
        ),
    ],
)
def test_bad_flags(argument, message):
    with pytest.raises(flags.IllegalFlagValueError) as error:
        options_of("--workdir=x", "--epochs=1", argument)
    assert str(error.value) == message


def test_words_that_are_no_flags():
    with pytest.raises(train.app.UsageError, match="^Unknown arguments: a b$"):
        train.main([sys.argv[0], "a", "b"])
