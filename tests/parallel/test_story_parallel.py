"""The story of examples/, trained by two real workers."""

import json

import keras
import numpy as np
import pytest

from examples import one_story
from tests.examples.test_one_story import options
from tests.parallel.launch import launch

pytestmark = [pytest.mark.horovod, pytest.mark.slow]


def test_two_processes_train_as_two_virtual_workers(tmp_path):
    few = [
        *("--steps_per_epoch=3", "--epochs=1", "--ssl_epochs=1"),
        *("--batch_size=4", "--finetune_epochs=1", "--until=shrink"),
    ]
    result = launch(
        2,
        [
            *("-m", "examples.one_story", "--workers=1"),
            *(f"--workdir={tmp_path / 'real'}", *few),
        ],
    )
    assert result.returncode == 0, result.stdout
    assert "ssl: 2 workers" in result.stdout
    facts = json.loads((tmp_path / "real" / "story.json").read_text())
    assert list(facts) == ["terngrad", "ssl", "shrink"]
    one_story.Story(
        options(tmp_path / "virtual", *few, "--workers=2", "--until=ssl"), str
    ).run()
    real, virtual = (
        keras.saving.load_model(
            tmp_path / folder / one_story.FILES["terngrad"]
        ).get_weights()
        for folder in ("real", "virtual")
    )
    for one, other in zip(real, virtual, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
