"""Real workers on this host: starts the check_*.py beside this file."""

import collections
import json
import re

import pytest

from tests.parallel.check_timeline import NUM_STEPS
from tests.parallel.launch import launch

pytest.importorskip("horovod.tensorflow")
pytestmark = [pytest.mark.horovod, pytest.mark.slow]


def _check(num_workers, *names):
    result = launch(
        num_workers,
        [
            "-m",
            "pytest",
            "-x",
            "-v",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *(f"tests/parallel/check_{name}.py" for name in names),
        ],
        timeout=400,
    )
    assert result.returncode == 0, result.stdout[-20_000:]
    # Every worker ran to the end.
    assert len(re.findall(r"=+ \d+ passed.* in ", result.stdout)) == num_workers


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers(num_workers):
    _check(num_workers, "collectives", "exchange", "training")


def test_number_of_collectives_a_step(tmp_path):
    expected = {
        "ternary": 2,
        "exempt": 3,
        "sparse": 4,
        "groups": 6,
        "allgather": 2,
        "alltoall": 3,
    }
    kinds = list(expected)
    timeline = tmp_path / "timeline.json"
    result = launch(
        2,
        ["tests/parallel/check_timeline.py", *kinds],
        HOROVOD_TIMELINE=str(timeline),
        HOROVOD_CACHE_CAPACITY="0",
    )
    assert result.returncode == 0, result.stdout[-20_000:]

    counts = collections.Counter()
    for name, calls in _calls(timeline.read_text()).items():
        kind = kinds[int(re.search(r"optimizer(\d)", name)[1])]
        assert calls == NUM_STEPS, name
        counts[kind] += 1
    assert counts == expected


def _calls(text):
    """Name of each collective -> how often it was called."""
    # The file is left open where workers just exit.
    events = json.loads(text.rstrip().rstrip(",").rstrip("]") + "]")
    names = {
        e["pid"]: e["args"]["name"]
        for e in events
        if e.get("name") == "process_name" and "name" in e["args"]
    }
    # Tensors of one grouped allreduce, such as float32_1of2, travel together.
    first = {i: n for i, n in names.items() if not re.search(r"_\d+of", n)}
    first |= {i: n for i, n in names.items() if "_1of" in n}
    return collections.Counter(
        first[e["pid"]]
        for e in events
        if e.get("name", "").startswith("NEGOTIATE") and e["pid"] in first
    )
