"""Test accuracy of LeNet on MNIST over the number of workers N.

    python benchmarks/lenet_mnist_curve.py

The paper's setting: a total batch of 64 cut into N parts, 10,000 iterations,
momentum 0.9 with learning rate 0.01, or plain SGD; a square root decays the
rate to 0; clipping at 2.5 standard deviations; all layers ternary. Weight decay
0.0005 stands in the paper's gradient; here it is decoupled: 0.005 with
momentum, which makes ten times as much of a gradient, 0.0005 with SGD.

The paper does not give SGD's learning rate. Three are tried with float
gradients, one worker, a seed that no other run has, and a fifth of the
iterations; the lowest training loss chooses, the test images have no part. A
rate with which float gradients have diverged in any run is out.

--workers are real processes under horovodrun, --virtual are
`train.py --virtual_workers` of one process, which computes the same bits. Float
gradients of virtual workers are left out unless --float_virtual asks for them:
the same sum of 64 images' gradients but for its rounding.

One run at a time, in the order of seeds, optimizers, N, compressions. Writes
curve/*.log, curve.md, curve.json and curve.png after each run. A run whose log
is complete is skipped, one that was killed goes on from its last checkpoint.

Reference: Wen et al., TernGrad, NIPS 2017, section 5.1.
"""

import collections
import dataclasses
import json
import math
import pathlib
import re
import signal
import statistics
import sys

import recipe_runs
from absl import app, flags
from recipe_runs import say

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_TOTAL_BATCH = 64
_WEIGHT_DECAY = {"momentum": 0.005, "sgd": 0.0005}
_MOMENTUM_RATE = 0.01
_SGD_RATES = (0.03, 0.1, 0.3)
_SEARCH_SEED = 100
_GRADIENTS = {"none": "float", "terngrad": "ternary"}

# The line that train.py prints after the last epoch.
_LAST_EPOCH = re.compile(
    r"epoch (\d+)/\1  loss (?P<loss>\S+) .* val_accuracy (?P<accuracy>[\d.]+)"
    r" +(?P<images_per_second>[\d,]+) images/s"
    r" +(?P<bits_per_element>[\d.]+) bits/element"
    r"(?: +(?P<zero_percent>[\d.]+)% zeros)?"
)

_WORKERS = flags.DEFINE_list("workers", ["1", "2", "4"], "Real workers.")
_VIRTUAL = flags.DEFINE_list(
    "virtual", ["8", "64", "16", "32"], "Virtual workers; divisors of 64."
)
_OPTIMIZERS = flags.DEFINE_list(
    "optimizers", ["momentum", "sgd"], "Of momentum, sgd."
)
_COMPRESSIONS = flags.DEFINE_list(
    "compressions", ["none", "terngrad"], "Of none, terngrad."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
_ITERATIONS = flags.DEFINE_integer(
    "iterations", 10_000, "Steps of each run, >= 5.", lower_bound=5
)
_FLOAT_VIRTUAL = flags.DEFINE_boolean(
    "float_virtual", False, "Also run float gradients of virtual workers."
)
_SGD_RATE = flags.DEFINE_float(
    "sgd_learning_rate", None, "Instead of the search, > 0.", lower_bound=1e-9
)
_OUTPUT = flags.DEFINE_string(
    "output", str(_ROOT / "docs/results/lenet_mnist"), "For the results."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", str(_ROOT / "runs/lenet_mnist_curve"), "For the checkpoints."
)
_FLAGS = flags.DEFINE_list("flags", [], "More flags for train.py.")
_REPORT_ONLY = flags.DEFINE_boolean(
    "report_only", False, "Write the results from the logs that are there."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training; its name is that of its log and of its workdir."""

    optimizer: str
    compression: str
    num_workers: int
    virtual: bool
    seed: int
    iterations: int
    learning_rate: float

    @property
    def name(self) -> str:
        """Such as momentum-terngrad-n8v-seed0-lr0.01-10000."""
        return (
            f"{self.optimizer}-{self.compression}-n{self.num_workers}"
            f"{'v' if self.virtual else ''}-seed{self.seed}"
            f"-lr{self.learning_rate:g}-{self.iterations}"
        )

    @property
    def log(self) -> pathlib.Path:
        """Output of train.py."""
        return pathlib.Path(_OUTPUT.value) / "curve" / f"{self.name}.log"

    @property
    def command(self) -> list[str]:
        """What makes the log."""
        processes = 1 if self.virtual else self.num_workers
        launcher = [
            str(pathlib.Path(sys.executable).with_name("horovodrun")),
            "--gloo",
            *("-np", str(processes)),
            *("-H", f"localhost:{processes}"),
        ]
        return [
            *(launcher if processes > 1 else []),
            sys.executable,
            "train.py",
            f"--workdir={pathlib.Path(_WORKDIR.value) / self.name}",
            "--model=lenet",
            "--dataset=mnist",
            f"--batch_size={_TOTAL_BATCH // self.num_workers}",
            f"--virtual_workers={self.num_workers if self.virtual else 1}",
            f"--steps={self.iterations}",
            f"--seed={self.seed}",
            f"--optimizer={self.optimizer}",
            f"--learning_rate={self.learning_rate:g}",
            "--lr_schedule=polynomial",
            "--momentum=0.9",
            f"--weight_decay={_WEIGHT_DECAY[self.optimizer]}",
            f"--compression={self.compression}",
            "--clip_factor=2.5",
            "--exchange=allreduce",
            *_FLAGS.value,
        ]


def summary(log: pathlib.Path) -> dict | None:
    """Returns what the last epoch's line says; None if it is not there."""
    if not log.is_file():
        return None
    found = list(_LAST_EPOCH.finditer(log.read_text()))
    if not found:
        return None
    return {
        key: value and float(value.replace(",", ""))
        for key, value in found[-1].groupdict().items()
    }


def parse_name(name: str) -> Run:
    """Returns the run of a name."""
    parts = re.fullmatch(
        r"(\w+)-(\w+)-n(\d+)(v?)-seed(\d+)-lr([\d.e-]+)-(\d+)", name
    )
    if parts is None:
        raise ValueError(f"No log of this program: {name}")
    optimizer, compression, n, virtual, seed, rate, iterations = parts.groups()
    return Run(
        optimizer,
        compression,
        int(n),
        bool(virtual),
        int(seed),
        int(iterations),
        float(rate),
    )


def train(run: Run) -> dict | None:
    """Does a run unless its log is complete; None if it fails."""
    done = summary(run.log)
    if done:
        return done
    say(f"{run.name}: starts")
    words = [
        pathlib.Path(w).name if w.startswith("/") else w for w in run.command
    ]
    _, minutes = recipe_runs.run(run.command, run.log, " ".join(words))
    done = summary(run.log)
    if done is None:
        say(f"{run.name}: FAILED after {minutes:.1f} min, see {run.log}")
    else:
        say(f"{run.name}: {100 * done['accuracy']:.2f} % in {minutes:.1f} min")
    return done


def search_runs() -> list[Run]:
    """Returns the short runs that choose SGD's learning rate."""
    return [
        Run("sgd", "none", 1, False, _SEARCH_SEED, _ITERATIONS.value // 5, rate)
        for rate in _SGD_RATES
    ]


def diverged_rates() -> set[float]:
    """Rates of SGD with which a run of float gradients ended without a loss."""
    diverged = set()
    for log in (pathlib.Path(_OUTPUT.value) / "curve").glob("sgd-none-*.log"):
        done = summary(log)
        if done and math.isnan(done["loss"]):
            diverged.add(parse_name(log.stem).learning_rate)
    return diverged


def sgd_rate() -> float | None:
    """Returns the rate of the lowest training loss; None without all logs."""
    if _SGD_RATE.value:
        return _SGD_RATE.value
    losses = {
        run.learning_rate: summary(run.log)["loss"]
        for run in search_runs()
        if summary(run.log)
    }
    if len(losses) < len(_SGD_RATES):
        return None
    diverged = diverged_rates()
    return min(losses, key=lambda rate: (rate in diverged, losses[rate]))


def runs_wanted():
    """Yields the runs that the flags ask for, in their order."""
    counts = [(int(n), False) for n in _WORKERS.value]
    counts += [(int(n), True) for n in _VIRTUAL.value]
    for seed in map(int, _SEEDS.value):
        for optimizer in _OPTIMIZERS.value:
            rate = _MOMENTUM_RATE
            if optimizer == "sgd":
                if not _SGD_RATE.value:
                    yield from search_runs()
                rate = sgd_rate()
                if rate is None:
                    say("sgd: left out, for its search has failed")
                    continue
            for n, virtual in counts:
                for compression in _COMPRESSIONS.value:
                    if virtual and compression == "none":
                        if not _FLOAT_VIRTUAL.value:
                            continue
                    yield Run(
                        optimizer,
                        compression,
                        n,
                        virtual,
                        seed,
                        _ITERATIONS.value,
                        rate,
                    )


def report() -> None:
    """Writes curve.md, curve.json and curve.png from all complete logs."""
    output = pathlib.Path(_OUTPUT.value)
    rates = {"momentum": _MOMENTUM_RATE, "sgd": sgd_rate()}
    results = []
    searched = []
    for log in sorted((output / "curve").glob("*.log")):
        run, done = parse_name(log.stem), summary(log)
        if done is None:
            continue
        entry = dataclasses.asdict(run) | done
        if run.seed == _SEARCH_SEED:
            searched.append(entry)
        elif (
            run.iterations == _ITERATIONS.value
            and run.learning_rate == rates[run.optimizer]
        ):
            results.append(entry)
    (output / "curve.json").write_text(
        json.dumps({"runs": results, "sgd_search": searched}, indent=1) + "\n"
    )
    points = _points(results)
    (output / "curve.md").write_text(_table(points, searched, rates))
    _plot(points, output / "curve.png")


def _points(results) -> dict:
    """(optimizer, compression, N, virtual) -> seed -> accuracy in percent."""
    points = collections.defaultdict(dict)
    for entry in results:
        key = tuple(
            entry[name]
            for name in ("optimizer", "compression", "num_workers", "virtual")
        )
        points[key][entry["seed"]] = 100 * entry["accuracy"]
    return dict(points)


def _table(points, searched, rates) -> str:
    lines = [
        "# LeNet on MNIST over the number of workers",
        "",
        f"`python benchmarks/{pathlib.Path(__file__).name}`; test accuracy in "
        f"percent after {_ITERATIONS.value:,} iterations, total batch "
        f"{_TOTAL_BATCH}; mean over the seeds in brackets, raw logs in "
        "[curve/](curve).",
        "",
        "| optimizer | N | float | ternary | difference |",
        "|---|---|---|---|---|",
    ]
    rows = sorted({(o, n, v) for o, _, n, v in points})
    for optimizer, n, virtual in rows:
        own = points.get((optimizer, "none", n, virtual), {})
        ternary = points.get((optimizer, "terngrad", n, virtual), {})
        # Float gradients of any N sum the same images.
        reference = own or points.get((optimizer, "none", 1, False), {})
        common = sorted(set(reference) & set(ternary))
        difference = ""
        if common:
            mean = statistics.mean(ternary[s] - reference[s] for s in common)
            difference = f"{mean:+.2f}"
        mark = "" if own or not reference else " (N = 1)"
        lines.append(
            f"| {optimizer} | {n}{' virtual' if virtual else ''} "
            f"| {_mean(reference)}{mark} | {_mean(ternary)} | {difference} |"
        )
    lines += [
        "",
        "Virtual: one process computes the gradients of N workers one after "
        "the other and exchanges them as N real ones would, with the same "
        "bits; nothing was sent. Where the table says N = 1, float gradients "
        "were not run: they are the sum of the same 64 images' gradients "
        "whatever N is, but for its rounding, so those of N = 1 stand in their "
        "place.",
        "",
        f"Momentum 0.9: learning rate {rates['momentum']:g}, decoupled weight "
        f"decay {_WEIGHT_DECAY['momentum']:g}. SGD: "
        + (
            f"learning rate {rates['sgd']:g}"
            if rates["sgd"]
            else "learning rate not chosen yet"
        )
        + f", decoupled weight decay {_WEIGHT_DECAY['sgd']:g}. Rates decay "
        "with the square root of the iterations that are left.",
    ]
    if searched:
        losses = ", ".join(
            f"{e['loss']:.4f} at {e['learning_rate']:g}"
            for e in sorted(searched, key=lambda e: e["learning_rate"])
        )
        lines.append(
            "SGD's rate has the lowest training loss of float gradients, one "
            f"worker, seed {_SEARCH_SEED}, {searched[0]['iterations']:,} "
            f"iterations: {losses}. Test accuracy had no part in it."
        )
        lines += [
            f"{rate:g} is out: float gradients diverged with it, see "
            f"curve/sgd-none-*-lr{rate:g}-*.log."
            for rate in sorted(diverged_rates())
        ]
    return "\n".join(lines) + "\n"


def _mean(accuracies: dict) -> str:
    if not accuracies:
        return ""
    seeds = ", ".join(map(str, sorted(accuracies)))
    return f"{statistics.mean(accuracies.values()):.2f} ({seeds})"


def _plot(points, path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        say(f"no {path.name}: pip install matplotlib")
        return
    optimizers = sorted({optimizer for optimizer, *_ in points})
    figure = Figure(figsize=(4.5 * max(1, len(optimizers)), 3.4))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        1, max(1, len(optimizers)), squeeze=False, sharey=True
    )[0]
    for axis, optimizer in zip(axes, optimizers, strict=False):
        for compression, style in (("none", "o--"), ("terngrad", "s-")):
            own = collections.defaultdict(list)  # of real and virtual workers
            for (o, c, n, _), accuracies in sorted(points.items()):
                if (o, c) == (optimizer, compression):
                    own[n] += accuracies.values()
            if not own:
                continue
            label = _GRADIENTS[compression]
            (line,) = axis.plot(
                list(own),
                [statistics.mean(values) for values in own.values()],
                style,
                label=label,
            )
            if compression == "none" and 1 in own:
                axis.axhline(
                    statistics.mean(own[1]),
                    color=line.get_color(),
                    linewidth=0.7,
                    linestyle=":",
                )
            for n, values in own.items():
                axis.plot([n] * len(values), values, ".", ms=3, color="0.5")
        axis.set_xscale("log", base=2)
        ticks = sorted({n for o, _, n, _ in points if o == optimizer})
        axis.set_xticks(ticks, [str(n) for n in ticks])
        axis.set_xlabel("workers N")
        axis.set_title(optimizer)
        axis.legend()
        axis.grid(alpha=0.3)
    # Differences of a tenth of a point are noise: they should look like it.
    everything = [a for own in points.values() for a in own.values()]
    if everything:
        middle = (min(everything) + max(everything)) / 2
        half = max(0.5, max(everything) - middle + 0.1)
        axes[0].set_ylim(middle - half, middle + half)
    axes[0].set_ylabel("test accuracy, %")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _check_flags() -> None:
    for flag, known in (
        (_OPTIMIZERS, _WEIGHT_DECAY),
        (_COMPRESSIONS, _GRADIENTS),
    ):
        for value in flag.value:
            if value not in known:
                raise app.UsageError(
                    f"--{flag.name}: Expected one of {sorted(known)}. "
                    f"Received: {value}"
                )
    for flag in (_WORKERS, _VIRTUAL):
        for value in flag.value:
            if not value.isdecimal() or int(value) < 1 or 64 % int(value):
                raise app.UsageError(
                    f"--{flag.name}: Expected divisors of {_TOTAL_BATCH}. "
                    f"Received: {value}"
                )
    for value in _SEEDS.value:
        if not value.isdecimal() or int(value) == _SEARCH_SEED:
            raise app.UsageError(
                f"--seeds: Expected integers >= 0 other than {_SEARCH_SEED}, "
                f"which the search takes. Received: {value}"
            )


def main(argv):
    """Does the runs that are missing, writes the results after each."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    _check_flags()
    # So that a run is ended with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    failed = []
    if not _REPORT_ONLY.value:
        for run in runs_wanted():
            if train(run) is None:
                failed.append(run.name)
            report()
    report()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    app.run(main)
