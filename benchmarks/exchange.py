"""Time and bytes of one exchange of gradients, against Horovod's own.

    sudo .venv/bin/python benchmarks/exchange.py \
      --links=100mbit,1gbit,10gbit,none --workers=2,4,8 \
      --payloads=lenet,resnet50,alexnet,vgg_a,googlenet \
      --output=docs/results/exchange

Real worker processes, each in a network namespace of its own behind a link of
the given rate (`links.py`; needs root and iproute2). `--links=loopback` needs
neither: workers under horovodrun on this host's loopback. Every cell of links,
workers and payloads leaves `<link>_<workers>_<payload>.json` and `.log` in
--output; cells whose JSON exists are not measured again. table.md holds all.

In a cell every round times every method once, in turn, each a compiled
tf.function from gradients to averages; tables give medians over rounds on the
slowest worker and their ratio to Horovod's fused fp32 and fp16 exchanges in
the same run. Averages are checked against NumPy before. Bytes are those that
the worker's network device counts, and the same less what Horovod sends while
idle for as long; they are counted in a run of their own with Horovod's cycle at
50 ms, so that it sends little while idle: it sends less while it transfers, so
that the exact share to subtract is not known. With --torch_python,
torch.distributed's Gloo is timed in the same namespaces, after the others.

Also, for one cell at a time: `horovodrun -np 2 --gloo python
benchmarks/exchange.py --payloads=lenet`.
"""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import links
import numpy as np
import payloads
from absl import app, flags

_LINKS = flags.DEFINE_list(
    "links",
    ["loopback"],
    "Rates such as 100mbit or 1gbit, none (namespaces without a limit), "
    "loopback.",
)
_WORKERS = flags.DEFINE_list("workers", ["2"], "Numbers of workers, each >= 1.")
_PAYLOADS = flags.DEFINE_list(
    "payloads", ["lenet"], f"Of {', '.join(payloads.SHAPES)}."
)
_SECONDS = flags.DEFINE_float(
    "seconds",
    60.0,
    "Time for the timed rounds of a cell; at least 3 rounds are run.",
    lower_bound=0.0,
)
_MAX_ROUNDS = flags.DEFINE_integer(
    "max_rounds", 200, "At most that many rounds.", lower_bound=3
)
_WARMUP = flags.DEFINE_integer(
    "warmup",
    2,
    "Rounds before that, besides the one that checks results.",
    lower_bound=1,
)
_COUNT_STEPS = flags.DEFINE_integer(
    "count_steps",
    20,
    "Steps over which bytes are counted; fewer, but at least 3, where they "
    "take longer than --seconds.",
    lower_bound=3,
)
_COUNTS = flags.DEFINE_boolean(
    "counts", False, "Under a launcher: counts bytes, into --output/bytes.json."
)
_THREADS = flags.DEFINE_integer(
    "threads",
    0,
    "TensorFlow threads of a worker; 0: cores / workers, at least 1.",
    lower_bound=0,
)
_TORCH = flags.DEFINE_string(
    "torch_python",
    None,
    "Python interpreter of an environment with PyTorch; None: not measured.",
)
_TIMEOUT = flags.DEFINE_float(
    "timeout", 7200.0, "Seconds after which a cell is given up."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for results; None: they are only printed."
)

_HERE = pathlib.Path(__file__).resolve().parent
_TORCH_NAME = "torch.distributed gloo fp32"

# A worker needs about this much: TensorFlow, Horovod and its fusion buffer;
# and gradients, averages, halves of both, and a check's copy.
_BASE_BYTES = 0.9e9
_BYTES_PER_ELEMENT = 16


def memory_needed(payload: str, num_workers: int) -> float:
    """Bytes that all workers of a cell need together, about."""
    elements = payloads.num_elements(payload)
    return num_workers * (_BASE_BYTES + _BYTES_PER_ELEMENT * elements)


def _check_memory(payload, num_workers):
    import psutil

    needed = memory_needed(payload, num_workers)
    available = psutil.virtual_memory().available
    if needed > available:
        raise links.LinkError(
            f"Not enough memory: {num_workers} workers with payload {payload} "
            f"need about {needed / 2**30:.1f} GiB. Available: "
            f"{available / 2**30:.1f} GiB"
        )


def _check_flags():
    """Raises app.UsageError before any work starts."""
    for link in _LINKS.value:
        if link not in ("loopback", "none"):
            try:
                links.check_rate(link)
            except ValueError as error:
                raise app.UsageError(f"--links: {error}") from error
    for workers in _WORKERS.value:
        if not workers.isdecimal() or int(workers) < 1:
            raise app.UsageError(
                "--workers: expected integers >= 1. Received: "
                f"{','.join(_WORKERS.value)}"
            )
    for payload in _PAYLOADS.value:
        if payload not in payloads.SHAPES:
            raise app.UsageError(
                f"--payloads: expected some of {','.join(payloads.SHAPES)}. "
                f"Received: {payload}"
            )


def _name(link, num_workers, payload):
    return f"{link}_{num_workers}_{payload}"


def _threads(num_workers):
    return _THREADS.value or max(1, os.cpu_count() // num_workers)


def _work():
    """This process is one worker, started by a launcher: measures its cell."""
    import exchange_worker

    if len(_LINKS.value) != 1 or len(_PAYLOADS.value) != 1:
        raise app.UsageError(
            "--links and --payloads: expected one of each under a launcher; "
            "without one, this program starts the workers of every cell. "
            f"Received: {','.join(_LINKS.value)} and "
            f"{','.join(_PAYLOADS.value)}"
        )
    (link,), (payload,) = _LINKS.value, _PAYLOADS.value
    unlimited = link in ("loopback", "none")
    local_size = int(os.environ.get("HOROVOD_LOCAL_SIZE", "1"))
    result = exchange_worker.measure(
        exchange_worker.Cell(
            link=link,
            payload=payload,
            bytes_per_second=links.bytes_per_second(
                None if unlimited else link
            ),
            threads=_threads(local_size),
            seconds=_SECONDS.value,
            max_rounds=_MAX_ROUNDS.value,
            warmup=_WARMUP.value,
            count_steps=_COUNT_STEPS.value if _COUNTS.value else 0,
        )
    )
    if result is None:
        return
    if _COUNTS.value:
        pathlib.Path(_OUTPUT.value, "bytes.json").write_text(json.dumps(result))
        return
    print(_table(result), flush=True)
    if _OUTPUT.value is not None:
        _write(pathlib.Path(_OUTPUT.value), result)


def _write(output, result):
    """Leaves the JSON of a cell, whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    name = _name(result["link"], result["workers"], result["payload"])
    unfinished = output / f"{name}.json.tmp"
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.rename(output / f"{name}.json")


def _group(link, num_workers):
    if link == "loopback":
        return links.Loopback(num_workers)
    return links.Namespaces(num_workers, None if link == "none" else link)


def _measure(link, num_workers, payload, log) -> dict:
    """Starts the workers of a cell, and PyTorch's; their results."""
    threads = _threads(num_workers)
    environment = os.environ | {
        "PYTHONPATH": str(_HERE.parent),
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Workers compute and wait for long; none is lost.
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "600",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": "600",
    }
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        group = stack.enter_context(_group(link, num_workers))
        command = [
            sys.executable,
            str(_HERE / "exchange.py"),
            f"--links={link}",
            f"--payloads={payload}",
            f"--threads={threads}",
            f"--seconds={_SECONDS.value}",
            f"--max_rounds={_MAX_ROUNDS.value}",
            f"--warmup={_WARMUP.value}",
            f"--count_steps={_COUNT_STEPS.value}",
            f"--output={scratch}",
        ]
        group.run_horovod(command, environment, log, _TIMEOUT.value)
        name = _name(link, num_workers, payload)
        result = json.loads((scratch / f"{name}.json").read_text())
        if link != "loopback":
            group.run_horovod(
                [*command, "--counts"],
                environment | {"HOROVOD_CYCLE_TIME": "50"},
                log,
                _TIMEOUT.value,
            )
            counts = json.loads((scratch / "bytes.json").read_text())
            for method, count in counts.items():
                result["methods"][method]["bytes"] = count
        if _TORCH.value is None:
            result["skipped"][_TORCH_NAME] = "--torch_python is not given"
            return result
        report = scratch / "torch.json"
        command = [
            _TORCH.value,
            str(_HERE / "exchange_torch.py"),
            f"--payload={payload}",
            f"--threads={threads}",
            f"--seconds={_SECONDS.value / len(result['methods'])}",
            f"--max_rounds={_MAX_ROUNDS.value}",
            f"--json={report}",
        ]
        group.run_torch(command, environment, log, _TIMEOUT.value)
        report = json.loads(report.read_text())
        p10, median, p90 = np.percentile(report["ms"], [10, 50, 90])
        result["methods"][_TORCH_NAME] = {
            "median_ms": median,
            "p10_ms": p10,
            "p90_ms": p90,
            "rounds": len(report["ms"]),
            "torch": report["torch"],
        }
    return result


def _table(result) -> str:
    """One cell as text."""
    methods = result["methods"]
    float32, float16 = (
        methods[f"horovod {kind}"]["median_ms"] for kind in ("fp32", "fp16")
    )
    link = result["measured_link"]
    kernels = result["kernels_ms"]
    load = ", ".join(f"{x:.1f}" for x in result["load_before_and_after"])
    lines = [
        f"{result['payload']}: {result['elements']:,} elements in "
        f"{result['tensors']} tensors; link {result['link']}: "
        f"{link['bytes_per_s'] / 1e6:.4g} MB/s with all sending, "
        f"{1e6 * link['alpha_s']:.0f} us one way, small allreduce "
        f"{1e3 * link['small_allreduce_s']:.2f} ms, "
        f"{1e3 * link['small_allreduce_busy_s']:.2f} ms beside our kernels, "
        f"cores busy {100 * link['busy_share']:.0f} % of the time of sending",
        f"{result['workers']} workers on {result['cores']} cores, "
        f"{result['threads']} threads each, {result['rounds']} rounds, "
        f"{result['kernels']}, load {load}",
        f"{'':28}{'median ms':>10}{'p10':>9}{'p90':>9}{'x fp32':>8}"
        f"{'x fp16':>8}{'bytes/step':>14}{'less idle':>14}{'bits_sent/8':>14}",
    ]
    for name, method in methods.items():
        line = (
            f"{name:28}{method['median_ms']:10.2f}{method['p10_ms']:9.2f}"
            f"{method['p90_ms']:9.2f}{float32 / method['median_ms']:8.2f}"
            f"{float16 / method['median_ms']:8.2f}"
        )
        count = method.get("bytes")
        if count is not None:
            line += f"{count['per_step']:14,.0f}"
            line += f"{count['net_per_step']:14,.0f}"
            if "expected_per_step" in count:
                line += f"{count['expected_per_step']:14,.0f}"
                good = count["within_3_percent_and_20_kb"]
                line += "" if good else "  MORE THAN 3 % + 20 KB OFF"
        lines.append(line)
    lines.append(
        "x: times as fast as Horovod's. Ops alone, all workers at once, ms: "
        + ", ".join(f"{k} {ms:.2f}" for k, ms in kernels.items())
    )
    lines.append(
        "Exchanges with no network, ms: "
        + ", ".join(f"{k} {ms:.2f}" for k, ms in result["compute_ms"].items())
    )
    share = sum(kernels.values()) / methods["ternary allreduce"]["median_ms"]
    lines.append(
        f"scalers, encode and decode alone: {100 * share:.0f} % of the time of "
        f"ternary allreduce ({result['workers']} workers on "
        f"{result['cores']} cores)"
    )
    lines += [f"not measured: {k}: {v}" for k, v in result["skipped"].items()]
    return "\n".join(lines)


def _markdown(results) -> str:
    """All cells, one row a method."""
    lines = [
        "| payload | link | workers | exchange | median ms | p10 | p90 | "
        "times as fast as fp32 | as fp16 | bytes a step and worker | less idle "
        "| bits_sent / 8 |",
        "|---" * 12 + "|",
    ]
    for result in results:
        methods = result["methods"]
        for name, method in methods.items():
            median = method["median_ms"]
            ratios = [
                f"{methods[f'horovod {kind}']['median_ms'] / median:.2f}"
                for kind in ("fp32", "fp16")
            ]
            count = method.get("bytes") or {}
            numbers = [
                f"{count[key]:,.0f}" if key in count else ""
                for key in ("per_step", "net_per_step", "expected_per_step")
            ]
            cells = [
                result["payload"],
                result["link"],
                str(result["workers"]),
                name,
                *(
                    f"{method[k]:.2f}"
                    for k in ("median_ms", "p10_ms", "p90_ms")
                ),
                *ratios,
                *numbers,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _write_markdown(output):
    results = [json.loads(f.read_text()) for f in output.glob("*_*_*.json")]
    order = list(payloads.SHAPES)
    results.sort(
        key=lambda r: (
            order.index(r["payload"]),
            r["rate_bytes_per_s"] or float("inf"),
            r["link"],
            r["workers"],
        )
    )
    (output / "table.md").write_text(_markdown(results))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    _check_flags()
    if "HOROVOD_RANK" in os.environ:
        _work()
        return
    if _TORCH.value is not None:
        subprocess.run([_TORCH.value, "-c", "import torch"], check=True)
    # Ends through the context managers, which clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = pathlib.Path(_OUTPUT.value or tempfile.mkdtemp())
    output.mkdir(parents=True, exist_ok=True)
    failed = []
    for payload, num_workers, link in itertools.product(
        _PAYLOADS.value, map(int, _WORKERS.value), _LINKS.value
    ):
        name = _name(link, num_workers, payload)
        if (output / f"{name}.json").exists():
            print(f"{name}: measured before", flush=True)
            continue
        try:
            _check_memory(payload, num_workers)
            with open(output / f"{name}.log", "w") as log:
                result = _measure(link, num_workers, payload, log)
        except links.LinkError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            if (output / f"{name}.log").exists():
                lines = (output / f"{name}.log").read_text().splitlines()
                print("\n".join(lines[-15:]), file=sys.stderr, flush=True)
            failed.append(name)
            continue
        _write(output, result)
        with open(output / f"{name}.log", "a") as log:
            log.write("\n" + _table(result) + "\n")
        print(_table(result) + "\n", flush=True)
        _write_markdown(output)
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
