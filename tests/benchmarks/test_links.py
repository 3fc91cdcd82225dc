"""Namespaces are made as asked and always removed; errors by their text."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

_FILE = pathlib.Path(__file__).parents[2] / "benchmarks" / "links.py"
_SPEC = importlib.util.spec_from_file_location("links", _FILE)
links = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(links)


@pytest.fixture(scope="module")
def namespaces():
    """Skips a test where they cannot be made: containers often forbid it."""
    try:
        with links.Namespaces(1, "1gbit"):
            pass
    except links.LinkError as error:
        pytest.skip(str(error))


def _left(identity):
    listed = subprocess.run(
        "ip netns list; ip -o link show; ls /etc/netns",
        shell=True,
        capture_output=True,
        text=True,
    ).stdout
    return identity in listed


@pytest.mark.parametrize(
    "rate, expected",
    [(None, None), ("100mbit", 12.5e6), ("2.5gbit", 312.5e6), ("8bit", 1.0)],
)
def test_bytes_per_second(rate, expected):
    assert links.bytes_per_second(rate) == expected


@pytest.mark.parametrize("rate", ["", "fast", "1 gbit", "-1gbit", "1gbyte"])
def test_refuses_rates(rate):
    with pytest.raises(ValueError) as error:
        links.Namespaces(2, rate)
    assert str(error.value) == (
        "Invalid value for argument rate. Expected a number followed by bit, "
        f"kbit, mbit or gbit, or None. Received: rate={rate!r}"
    )


def test_says_that_iproute2_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(links.LinkError) as error:
        links.Namespaces(2)
    assert str(error.value) == (
        "Cannot find ip and tc. Install iproute2 (apt-get install iproute2), "
        "or use --links=loopback."
    )


def test_says_that_root_is_missing(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(links.LinkError) as error:
        links.Namespaces(2)
    assert str(error.value) == (
        "Network namespaces need root. Start this with sudo, or use "
        "--links=loopback. Received: user id 1000"
    )


@pytest.mark.usefixtures("namespaces")
def test_limits_counts_and_cleans_up(tmp_path):
    with links.Namespaces(2, "10mbit") as group:
        log = open(tmp_path / "log", "w")
        command = (
            "tc qdisc show dev link0; getent hosts $(hostname); "
            f"ping -c 1 -q -W 2 {group.address(1)} || "
            f"exec 3<>/dev/udp/{group.address(1)}/9 && echo hello >&3"
        )
        before = group.bytes_sent(0)
        shell = ["bash", "-c", command]
        links.wait([group.start(0, shell, dict(os.environ), log)], 20)
        log.close()
        assert group.bytes_sent(0) > before
    text = (tmp_path / "log").read_text()
    assert "tbf" in text and "rate 10Mbit" in text
    # The host's name is this namespace's address, not 127.0.0.1.
    assert f"{group.address(0)} " in text
    assert not _left(f"tgl{os.getpid()}")


@pytest.mark.usefixtures("namespaces")
def test_one_failure_stops_all(tmp_path):
    with open(tmp_path / "log", "w") as log:
        with links.Namespaces(2) as group:
            waiting = group.start(0, ["sleep", "60"], dict(os.environ), log)
            failing = group.start(1, ["false"], dict(os.environ), log)
            with pytest.raises(links.LinkError) as error:
                links.wait([waiting, failing], 30)
    assert str(error.value) == (
        "Worker 1 of 2 failed with exit status 1; the others were stopped."
    )
    assert waiting.returncode == -signal.SIGTERM


@pytest.mark.usefixtures("namespaces")
def test_time_runs_out(tmp_path):
    with open(tmp_path / "log", "w") as log:
        with links.Namespaces(1) as group:
            process = group.start(0, ["sleep", "60"], dict(os.environ), log)
            with pytest.raises(links.LinkError) as error:
                links.wait([process], 0.2)
    assert str(error.value) == "Workers took more than 0.2 s and were stopped."


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left(sent):
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import links\n"
        "with links.Namespaces(2, '1gbit'):\n"
        "    print('made', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(_FILE.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"made\n"
    identity = f"tgl{process.pid}"
    assert _left(identity)
    process.send_signal(sent)
    process.wait(20)
    if sent == signal.SIGKILL:
        assert _left(identity)
        links.remove_leftovers()
        time.sleep(0.1)
    assert not _left(identity)
