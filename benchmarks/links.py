"""Workers behind links of a given rate, on one Linux machine.

Each worker lives in a network namespace of its own, joined to the others by a
bridge; a token bucket limits what it sends:

    with links.Namespaces(num_workers=2, rate="1gbit") as group:
        group.run_horovod(["python", "program.py"], environment, log)

Needs root and the programs `ip` and `tc` (Debian: iproute2). What was made is
removed again on every way out; what a killed process left behind is removed by
the next one.

Horovod binds to the address that the host's name resolves to, whatever
HOROVOD_GLOO_IFACE says, so each namespace has an /etc/hosts of its own.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

_PREFIX = "tgl"  # of namespaces and devices: tgl<process>...
_NETNS = pathlib.Path("/etc/netns")
_DEVICE = "link0"  # each worker's end
# Of a link's rate, what may pass at once; but always some packets.
_BURST_S = 2e-3
_LEAST_BURST = 16_384
_RATE = re.compile(r"\d+(\.\d+)?[kmg]?bit")
_BITS = {"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


class LinkError(RuntimeError):
    """Links cannot be made, or a program behind them failed."""


def bytes_per_second(rate: str | None) -> float | None:
    """Bytes a second of a rate such as "100mbit"; None for no limit.

    >>> bytes_per_second("1gbit")
    125000000.0
    """
    if rate is None:
        return None
    check_rate(rate)
    digits = re.match(r"[\d.]+", rate)[0]
    return float(digits) * _BITS[rate[len(digits) :]] / 8


def check_rate(rate: str | None) -> None:
    """Raises ValueError unless this is a rate such as "100mbit", or None."""
    if rate is not None and not _RATE.fullmatch(rate):
        raise ValueError(
            "Invalid value for argument rate. Expected a number followed by "
            f"bit, kbit, mbit or gbit, or None. Received: rate={rate!r}"
        )


def check_host() -> None:
    """Raises LinkError unless namespaces can be made here."""
    if not sys.platform.startswith("linux"):
        raise LinkError(
            "Network namespaces need Linux. Use --links=loopback. Received: "
            f"platform {sys.platform}"
        )
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    if missing:
        raise LinkError(
            f"Cannot find {' and '.join(missing)}. Install iproute2 "
            "(apt-get install iproute2), or use --links=loopback."
        )
    if os.geteuid() != 0:
        raise LinkError(
            "Network namespaces need root. Start this with sudo, or use "
            f"--links=loopback. Received: user id {os.geteuid()}"
        )


class Namespaces:
    """Workers in network namespaces, joined by a bridge.

    Args:
        num_workers: Int >= 1.
        rate: What each worker may send, such as "100mbit" or "1gbit" (bits a
            second on the wire, headers included); None: no limit.

    Raises:
        LinkError: Not root, iproute2 is missing, or `ip` failed.
    """

    device = _DEVICE

    def __init__(self, num_workers: int, rate: str | None = None):
        check_rate(rate)
        check_host()
        self.num_workers = num_workers
        self.rate = rate
        self._id = f"{_PREFIX}{os.getpid()}"
        self._names = [f"{self._id}-{i}" for i in range(num_workers)]
        # 198.18.0.0/15 is set aside for benchmarks of networks (RFC 2544).
        self._subnet = f"198.18.{os.getpid() % 256}"
        self._processes = []

    def __enter__(self):
        remove_leftovers()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception):
        self.close()

    def address(self, i: int) -> str:
        """Of worker i."""
        return f"{self._subnet}.{i + 2}"

    def _make(self):
        bridge = self._id
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "address", "add", f"{self._subnet}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for i, name in enumerate(self._names):
            _run("ip", "netns", "add", name)
            end = f"{self._id}v{i}"
            # fmt: off
            _run("ip", "link", "add", end, "type", "veth",
                 "peer", "name", _DEVICE, "netns", name)
            _run("ip", "link", "set", end, "master", bridge, "up")
            inside = ("ip", "-netns", name)
            _run(*inside, "address", "add", f"{self.address(i)}/24",
                 "dev", _DEVICE)
            _run(*inside, "link", "set", "lo", "up")
            _run(*inside, "link", "set", _DEVICE, "up")
            if self.rate is not None:
                burst = int(_BURST_S * bytes_per_second(self.rate))
                _run("tc", "-netns", name, "qdisc", "add", "dev", _DEVICE,
                     "root", "tbf", "rate", self.rate, "burst",
                     f"{max(_LEAST_BURST, burst)}b", "latency", "50ms")
            # fmt: on
            folder = _NETNS / name
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(
                f"127.0.0.1 localhost\n{self.address(i)} "
                f"{socket.gethostname()} {name}\n"
            )

    def start(self, i: int, command: list, environment: dict, log):
        """Starts a program as worker i; returns its Popen."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._names[i], *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def bytes_sent(self, i: int) -> int:
        """Bytes that worker i has sent so far, as its device counts them."""
        counter = f"/sys/class/net/{_DEVICE}/statistics/tx_bytes"
        return int(_run("ip", "netns", "exec", self._names[i], "cat", counter))

    def run_horovod(self, command, environment, log, timeout) -> None:
        """Runs a program on all workers, joined by Horovod, to its end.

        Args:
            command: List of strings.
            environment: Dict.
            log: File for all that they print.
            timeout: Seconds.

        Raises:
            LinkError: A worker failed, or time ran out. All are stopped.
        """
        from horovod.runner.common.util import hosts
        from horovod.runner.http import http_server

        server = http_server.RendezvousServer()
        port = server.start()
        try:
            slots = hosts.get_host_assignments(
                hosts.parse_hosts(",".join(f"{n}:1" for n in self._names)),
                self.num_workers,
            )
            server.init(slots)
            processes = [
                self.start(
                    slot.rank,
                    command,
                    environment
                    | {
                        "HOROVOD_HOSTNAME": slot.hostname,
                        "HOROVOD_RANK": str(slot.rank),
                        "HOROVOD_SIZE": str(slot.size),
                        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
                        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
                        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
                        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
                        "HOROVOD_GLOO_RENDEZVOUS_ADDR": f"{self._subnet}.1",
                        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
                        "HOROVOD_GLOO_IFACE": _DEVICE,
                        "HOROVOD_CONTROLLER": "gloo",
                        "HOROVOD_CPU_OPERATIONS": "gloo",
                        "LINK_ADDRESS": self.address(slot.rank),
                        "LINK_DEVICE": _DEVICE,
                    },
                    log,
                )
                for slot in slots
            ]
            wait(processes, timeout)
        finally:
            server.stop()

    def run_torch(self, command, environment, log, timeout) -> None:
        """As `run_horovod`, with the environment of torch.distributed."""
        processes = [
            self.start(
                i,
                command,
                environment
                | torch_environment(
                    i, self.num_workers, self.address(0), 29500, _DEVICE
                ),
                log,
            )
            for i in range(self.num_workers)
        ]
        wait(processes, timeout)

    def close(self) -> None:
        """Stops the workers and removes namespaces and devices."""
        stop(self._processes)
        _remove(self._id)


class Loopback:
    """Workers on this host's loopback, under horovodrun: no limit."""

    device = "lo"
    rate = None

    def __init__(self, num_workers: int):
        self.num_workers = num_workers
        self._processes = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        stop(self._processes)

    def _start(self, command, environment, log):
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def run_horovod(self, command, environment, log, timeout) -> None:
        """As `Namespaces.run_horovod`."""
        launcher = pathlib.Path(sys.executable).with_name("horovodrun")
        launch = [str(launcher), "--gloo", "-np", str(self.num_workers)]
        launch += ["-H", f"localhost:{self.num_workers}"]
        wait([self._start([*launch, *command], environment, log)], timeout)

    def run_torch(self, command, environment, log, timeout) -> None:
        """As `Namespaces.run_torch`."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        processes = [
            self._start(
                command,
                environment
                | torch_environment(
                    i, self.num_workers, "127.0.0.1", port, "lo"
                ),
                log,
            )
            for i in range(self.num_workers)
        ]
        wait(processes, timeout)


def torch_environment(rank, size, address, port, device) -> dict:
    """What torch.distributed's Gloo reads from the environment."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": device,
    }


def wait(processes, timeout: float) -> None:
    """Returns when all have ended well.

    Raises:
        LinkError: One failed, or time ran out. All are stopped.
    """
    deadline = time.monotonic() + timeout
    while True:
        codes = [process.poll() for process in processes]
        failed = [i for i, code in enumerate(codes) if code]
        if failed:
            stop(processes)
            raise LinkError(
                f"Worker {failed[0]} of {len(processes)} failed with exit "
                f"status {codes[failed[0]]}; the others were stopped."
            )
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            stop(processes)
            raise LinkError(
                f"Workers took more than {timeout:g} s and were stopped."
            )
        time.sleep(0.1)


def stop(processes) -> None:
    """Ends processes that were started in sessions of their own."""
    running = [process for process in processes if process.poll() is None]
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        for process in running:
            try:
                os.killpg(process.pid, wanted)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 5
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        running = [process for process in running if process.poll() is None]


def remove_leftovers() -> None:
    """Removes what processes that are gone have left behind."""
    listed = _run("ip", "netns", "list") + _run("ip", "-o", "link", "show")
    for owner in sorted(set(re.findall(rf"\b{_PREFIX}(\d+)", listed))):
        if not pathlib.Path(f"/proc/{owner}").exists():
            _remove(f"{_PREFIX}{owner}")


def _remove(identity: str) -> None:
    """Deletes namespaces, then the bridge; devices go with them."""
    names = _run("ip", "netns", "list").split()
    for name in names:
        if name.startswith(f"{identity}-"):
            _run("ip", "netns", "delete", name)
    for folder in _NETNS.glob(f"{identity}-*"):
        shutil.rmtree(folder)
    devices = _run("ip", "-o", "link", "show")
    for device in re.findall(rf"\b({identity}v\d+|{identity})[:@]", devices):
        # A veth pair may vanish with its namespace at any moment.
        _run("ip", "link", "delete", device, check=False)


def _run(*command: str, check: bool = True) -> str:
    """The program's output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise LinkError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
