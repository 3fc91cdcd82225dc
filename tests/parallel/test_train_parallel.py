"""train.py under horovodrun: a lost worker, going on, another number."""

import os
import pathlib
import random
import signal
import threading
import time

import keras
import numpy as np
import pytest

from models.run import metrics_log
from tests import fake_images
from tests.parallel.launch import ROOT, launch

pytestmark = [pytest.mark.horovod, pytest.mark.slow]

EPOCHS = 20


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data_dir = fake_images.prepare(tmp_path_factory.mktemp("data"))
    return [
        str(ROOT / "train.py"),
        f"--data_dir={data_dir}",
        "--dataset=fake_images",
        "--model=mlp",
        "--dropout=0.25",
        "--batch_size=10",
        f"--epochs={EPOCHS}",
    ]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """A run of two workers that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    result = launch(2, [*flags, f"--workdir={workdir}"])
    assert result.returncode == 0, result.stdout
    return workdir, result.stdout


def weights(workdir):
    return keras.saving.load_model(workdir / "model.keras").get_weights()


def worker(workdir, rank) -> int:
    """Process id of a worker of the run."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            f"--workdir={workdir}".encode() in arguments
            and f"HOROVOD_RANK={rank}".encode() in environment
        ):
            return int(process.name)
    raise LookupError(f"no worker {rank} of {workdir}")


def wait_for(path, seconds=100):
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.02)


def test_two_workers(finished):
    workdir, output = finished
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert [entry["epoch"] for entry in entries] == list(range(1, EPOCHS + 1))
    assert entries[-1]["step"] == 5 * EPOCHS
    assert 1.6 < entries[-1]["bits_per_element"] < 1.9  # trits
    assert 0 < entries[-1]["zero_fraction"] < 1
    assert entries[-1]["val_accuracy"] == 1.0
    assert sorted(
        path.name
        for path in (workdir / "checkpoints" / f"epoch-{EPOCHS:05d}").iterdir()
    ) == [
        "manifest.json",
        "rank-00000-of-00002.npz",
        "rank-00001-of-00002.npz",
        "shared.npz",
    ]
    assert "[0]<stdout>:workers      2, 10 images each a step, 20" in output
    assert f"[0]<stdout>:epoch {EPOCHS}/{EPOCHS}  loss" in output
    assert "[1]<stdout>" not in output  # worker 0 speaks for all


@pytest.mark.parametrize("lost", [1])
def test_lost_worker_and_next_start(flags, finished, tmp_path, lost):
    workdir = tmp_path / "run"
    command = [*flags, f"--workdir={workdir}"]
    results = []
    run = threading.Thread(target=lambda: results.append(launch(2, command)))
    run.start()
    wait_for(workdir / "checkpoints" / "epoch-00003")
    os.kill(worker(workdir, lost), signal.SIGKILL)
    run.join(timeout=60)

    (result,) = results
    assert result.returncode != 0
    other = 1 - lost
    # Which of the two it is depends on who is faster, horovodrun or Gloo.
    assert (
        f"train.py: Worker {other} stops: another worker was lost. The same "
        "command goes on from the last checkpoint."
    ) in result.stdout or (
        f"train.py: Worker {other} was told to stop. The same command goes on "
        "from the last checkpoint."
    ) in result.stdout
    assert not (workdir / "model.keras").exists()

    result = launch(2, command)
    assert result.returncode == 0, result.stdout
    assert "Going on after epoch " in result.stdout
    # To the bit what the undisturbed run has computed.
    for a, b in zip(weights(workdir), weights(finished[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert [entry["epoch"] for entry in entries] == list(range(1, EPOCHS + 1))


def test_run_killed_at_a_random_step_equals_one_that_was_not(
    flags, finished, tmp_path
):
    workdir = tmp_path / "run"
    command = [*flags, f"--workdir={workdir}"]
    results = []
    run = threading.Thread(target=lambda: results.append(launch(2, command)))
    run.start()
    # Any time between the first checkpoint and the last, so in any state of a
    # step, a validation or a checkpoint's writing.
    first, last = 1, EPOCHS - 2
    epoch = random.SystemRandom().randint(first, last)
    wait_for(workdir / "checkpoints" / f"epoch-{epoch:05d}")
    time.sleep(random.SystemRandom().uniform(0, 0.1))
    for rank in (0, 1):
        try:
            os.kill(worker(workdir, rank), signal.SIGKILL)
        except (LookupError, ProcessLookupError):
            pass  # horovodrun was faster
    run.join(timeout=60)
    (result,) = results
    assert result.returncode != 0, f"finished before its end, epoch {epoch}"

    result = launch(2, command)
    assert result.returncode == 0, result.stdout
    assert "Going on after epoch " in result.stdout, f"killed after {epoch}"
    for a, b in zip(weights(workdir), weights(finished[0]), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"killed after {epoch}")


@pytest.mark.parametrize(
    "accumulate, starts", [(1, [(2, 1), (1, 2)]), (2, [(4, 1), (2, 2)])]
)
def test_virtual_workers_equal_real_ones_to_the_bit(
    flags, tmp_path, accumulate, starts
):
    common = [*flags, "--dropout=0", "--epochs=2", "--batch_size=4"]
    common += [f"--accumulate={accumulate}"]
    workdirs = []
    for processes, virtual in starts:
        workdir = tmp_path / f"{processes}"
        result = launch(
            processes,
            [*common, f"--workdir={workdir}", f"--virtual_workers={virtual}"],
        )
        assert result.returncode == 0, result.stdout
        workdirs.append(workdir)
    for a, b in zip(*map(weights, workdirs), strict=True):
        np.testing.assert_array_equal(a, b)
    real, simulated = (
        metrics_log.read(workdir / "metrics.jsonl")[-1] for workdir in workdirs
    )
    for name in (
        "step",
        "bits_per_element",
        "zero_fraction",
        "saturation",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
    ):
        assert simulated[name] == pytest.approx(real[name], rel=1e-5), name


def test_going_on_with_three_workers(flags, finished, tmp_path):
    workdir, _ = finished
    result = launch(
        3, [*flags, f"--workdir={workdir}", f"--epochs={EPOCHS + 1}"]
    )
    assert result.returncode == 0, result.stdout
    assert (
        f"epoch-{EPOCHS:05d} was written by 2 worker(s), now there are 3: all "
        "take the moving statistics of worker 0 and start new random streams."
    ) in result.stdout
    assert f"Going on after epoch {EPOCHS} of {EPOCHS + 1}." in result.stdout


def test_bad_flags_stop_all_workers(flags, tmp_path):
    result = launch(2, [*flags, f"--workdir={tmp_path}", "--dataset=nothing"])
    assert result.returncode != 0
    assert "train.py: Invalid value for argument name. Expected" in (
        result.stdout
    )


def test_all_flags_of_the_exchange_go_on(flags, tmp_path):
    # Error feedback is each worker's own: without its checkpoint the second
    # half would differ.
    flags = [f for f in flags if not f.startswith("--epochs")] + [
        "--exchange=alltoall",
        "--bucket_size=50",
        "--error_feedback",
        "--warmup_steps=3",
        "--float_every_epochs=3",
        "--groups=2",
        "--measure_link",
    ]
    for name, epochs in (("whole", [4]), ("halves", [2, 4])):
        for last in epochs:
            result = launch(
                2,
                [*flags, f"--epochs={last}", f"--workdir={tmp_path / name}"],
            )
            assert result.returncode == 0, result.stdout
    for whole, halves in zip(
        weights(tmp_path / "whole"), weights(tmp_path / "halves"), strict=True
    ):
        np.testing.assert_array_equal(whole, halves)
