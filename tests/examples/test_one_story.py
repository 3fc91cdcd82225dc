"""The story of examples/, on a few steps."""

import json
import shutil

import keras
import numpy as np
import pytest
from absl import flags

from examples import load_stage, one_story, story_table

_FEW = [
    *("--steps_per_epoch=2", "--epochs=1", "--ssl_epochs=2", "--workers=2"),
    *("--batch_size=4", "--structure_lasso=30", "--seconds=0"),
]


def options(workdir, *more):
    found = flags.FlagValues()
    one_story.define_flags(found)
    found(["one_story", f"--workdir={workdir}", *_FEW, *more])
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A story that is told, and its facts."""
    folder = tmp_path_factory.mktemp("story")
    said = []
    story = one_story.Story(options(folder), said.append)
    return folder, story.run(), said


@pytest.mark.slow
def test_stages(finished):
    folder, facts, _ = finished
    assert list(facts) == list(one_story.FILES)
    for stage, name in one_story.FILES.items():
        assert (folder / name).exists()
        assert facts[stage]["fresh"] < 1e-4
        assert set(facts[stage]["ms"]) == {"1", "32"}
    # Strength 30 leaves one unit of each layer.
    assert facts["shrink"]["parameters"] < 0.01 * facts["ssl"]["parameters"]
    assert facts["int8"]["bytes"] < facts["shrink"]["bytes"]


@pytest.mark.slow
def test_goes_on_where_it_was(finished, tmp_path):
    folder, facts, _ = finished
    shutil.copytree(folder, tmp_path / "again")
    path = tmp_path / "again" / "story.json"
    kept = {k: v for k, v in facts.items() if k in ("terngrad", "ssl")}
    path.write_text(json.dumps(kept))
    said = []
    again = one_story.Story(options(tmp_path / "again"), said.append)
    found = again.run()
    assert found["terngrad"]["seconds"] == facts["terngrad"]["seconds"]
    assert not any("workers, from epoch" in str(each) for each in said)
    for stage in one_story.FILES:
        assert found[stage]["accuracy"] == facts[stage]["accuracy"]


@pytest.mark.slow
def test_another_process_without_the_library(finished):
    folder, _, _ = finished
    images = np.ones((2, 28, 28, 1), np.float32)
    path = folder / one_story.FILES["shrink"]
    model = keras.saving.load_model(path, compile=False)
    np.testing.assert_allclose(
        load_stage.in_fresh_process(path, images),
        model.predict_on_batch(images),
        rtol=1e-4,
    )
    with pytest.raises(RuntimeError) as error:
        load_stage.in_fresh_process(folder / "nothing.keras", images)
    assert "nothing.keras does not load in a fresh process" in str(error.value)


def test_table():
    facts = {
        "shrink": {
            **{"accuracy": 99.0, "parameters": 12345, "bytes": 67890},
            **{"multiply_adds": 1000, "seconds": 61.4, "fresh": 1e-7},
            "ms": {"1": 0.5, "32": 2.0},
        },
        "int8": {
            **{"accuracy": 98.0, "parameters": None, "bytes": 999},
            **{"multiply_adds": None, "seconds": 1},
        },
    }
    lines = story_table.table(facts).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == [
        *("shrink", "99.00", "12,345", "67,890", "1,000"),
        *("0.500", "2.000", "1e-07", "61"),
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:5]] == [
        *("int8", "98.00", "", "999"),
    ]
