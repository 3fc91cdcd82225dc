"""A language model that learns units away, on two workers with ternary
gradients.
"""

import keras
import pytest

from models.run import metrics_log
from tests import fake_text
from tests.parallel.launch import ROOT, launch

pytestmark = [pytest.mark.horovod, pytest.mark.slow]


def test_two_workers_learn_units_away(tmp_path):
    text = fake_text.write(tmp_path / "text.txt", 400)
    workdir = tmp_path / "run"
    result = launch(
        2,
        [
            str(ROOT / "train.py"),
            f"--workdir={workdir}",
            f"--data_dir={text}",
            "--model=ptb_lstm",
            "--dataset=words",
            "--size=small",
            "--hidden=12,9",
            "--embedding=7",
            "--dropout=0.1",
            "--num_steps=5",
            "--batch_size=2",
            "--epochs=3",
            "--optimizer=sgd",
            "--learning_rate=0.5",
            "--lr_schedule=polynomial",
            "--global_clipnorm=5",
            "--iss_strength=0.02",
            "--threshold=0.005",
            "--compression=terngrad",
        ],
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    assert "workers      2, 10 words each a step, 20 in all" in result.stdout
    entries = metrics_log.read(workdir / "metrics.jsonl")
    assert 1.5 < entries[-1]["bits_per_element"] < 2.5
    assert entries[-1]["val_perplexity"] < entries[0]["val_perplexity"]
    units = [
        [entry[f"units_lstm{layer}"] for layer in (1, 2)] for entry in entries
    ]
    # Dead units stay dead over the last epoch, though ternary steps are coarse.
    assert sum(units[-1]) < 12 + 9
    assert sum(units[-1]) <= sum(units[-2])
    # Weights are the same on both workers: ReplicaCheck has passed.
    keras.saving.load_model(workdir / "model.keras")
