"""Workers are lost and added while they train: starts check_elastic.py."""

import json
import statistics

import pytest

from tests.parallel.launch import launch

pytest.importorskip("horovod.tensorflow")
pytestmark = [pytest.mark.horovod, pytest.mark.slow]

# Names of this host: horovodrun shuns one on which a worker was lost.
HOSTS = ["localhost", "127.0.0.1", "127.0.1"]


def _launch(folder, hosts):
    (folder / "hosts.txt").write_text("".join(f"{h}:1\n" for h in hosts))
    script = folder / "discover.sh"
    script.write_text(f"#!/bin/sh\ncat {folder}/hosts.txt\n")
    script.chmod(0o755)
    return launch(
        len(hosts),
        ["tests/parallel/check_elastic.py", str(folder)],
        timeout=900,
        options=[
            *("--min-np", "2", "--max-np", "3"),
            *("--host-discovery-script", str(script)),
            *("--network-interfaces", "lo"),
        ],
    )


def test_one_killed_one_added(tmp_path):
    from tests.parallel import check_elastic as check

    result = _launch(tmp_path, HOSTS)
    assert result.returncode == 0, result.stdout[-20_000:]
    logs = {
        path.stem: [json.loads(line) for line in path.open()]
        for path in tmp_path.glob("*.jsonl")
    }
    assert sorted(logs) == sorted([*HOSTS, check.ADDED_HOST])

    # The killed worker wrote its last step; the others end alike.
    killed = logs.pop(check.KILLED_HOST)
    assert killed[-1]["step"] == check.KILLED_AT
    ends = [lines.pop() for lines in logs.values()]
    assert ends[0] == ends[1] == ends[2]
    assert ends[0]["sizes"] == [3, 2, 3]
    assert ends[0]["exchanges"] == ends[0]["steps"]

    # Nothing but the steps since the last commit is lost, and no others.
    lines = logs["localhost"]
    steps = [line["step"] for line in lines]
    sizes = [line["size"] for line in lines]
    lost = sizes.index(2)
    assert steps[lost - 1] in (check.KILLED_AT - 1, check.KILLED_AT)
    assert (
        steps[lost]
        == check.KILLED_AT // check.COMMIT_EVERY * check.COMMIT_EVERY + 1
    )
    assert steps[lost:] == list(range(steps[lost], ends[0]["steps"] + 1))
    joined = len(sizes) - sizes[::-1].index(2)
    assert logs[check.ADDED_HOST][0]["step"] == steps[joined]

    # The loss goes on where it was, far below that of the start.
    both = zip(lines, logs["127.0.0.1"], strict=True)
    losses = [(a["loss"] + b["loss"]) / 2 for a, b in both]
    start = statistics.mean(losses[:3])
    for i in (lost, joined):
        before = statistics.mean(losses[i - 8 : i])
        after = statistics.mean(losses[i : i + 8])
        assert after < (before + start) / 2, losses
    assert statistics.mean(losses[-8:]) < start / 2, losses
