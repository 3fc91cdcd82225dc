"""What `tf_ssl.compare` found: rows, totals, a table, JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import math

from rich import box
from rich.console import Console
from rich.table import Table

from tf_ssl.measure.latency import Latency


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """A layer of one of the models; or several that do the work of one.

    Attributes:
        names: Of the layers.
        kinds: Their classes' names.
        outputs: Shapes without the batch; of several layers, what no other of
            them reads.
        kernels: Shapes of weights of 2 or more dimensions.
        parameters: Number of weights, statistics included.
        weight_bytes: Bytes that they take.
        multiply_adds: Of one example; None where none are counted.
        latency: Batch size -> `Latency` of the layer alone.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    outputs: tuple[tuple, ...]
    kernels: tuple[tuple, ...]
    parameters: int
    weight_bytes: int
    multiply_adds: int | None
    latency: dict[int, Latency]


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer before and after; None where a model does not have it."""

    name: str
    before: LayerFacts | None
    after: LayerFacts | None

    def speed_up(self, batch_size: int) -> float | None:
        """Time before over time after, of the layer alone; None: one side."""
        times = [
            side and side.latency.get(batch_size)
            for side in (self.before, self.after)
        ]
        if None in times:
            return None
        return times[0].median_ms / times[1].median_ms

    @property
    def has_multiply_adds(self) -> bool:
        """Whether both sides do."""
        return all(
            side is not None and side.multiply_adds
            for side in (self.before, self.after)
        )


@dataclasses.dataclass(frozen=True)
class Pair:
    """A number of each model, or a `Latency`."""

    before: float | Latency
    after: float | Latency

    @property
    def ratio(self) -> float:
        """Before over after."""
        before, after = (
            x.median_ms if isinstance(x, Latency) else x
            for x in (self.before, self.after)
        )
        return before / after if after else math.nan


@dataclasses.dataclass(frozen=True)
class Totals:
    """Of whole models.

    Attributes:
        num_layers: `Pair`.
        parameters: `Pair`; shared weights count once.
        weight_bytes: `Pair`.
        multiply_adds: `Pair`, of one example, without unknown layers.
        latency: Batch size -> `Pair` of `Latency`, the whole models in turn.
        sum_of_layers_ms: Batch size -> `Pair`: medians of layers alone added.
        call_ms: Batch size -> median of a compiled function that does nothing:
            a part of every time of a layer alone.
        speed_up_total_time: Batch size -> time of the whole model before over
            after.
        speed_up_mean_of_layers: Batch size -> mean over layers of time before
            over after, each alone: the "speedup" of the paper. NaN without
            such layers.
        num_layers_in_mean: Layers with multiply-adds on both sides.
        largest_difference: Output's name -> max|a - b| / max|a|.
    """

    num_layers: Pair
    parameters: Pair
    weight_bytes: Pair
    multiply_adds: Pair
    latency: dict[int, Pair]
    sum_of_layers_ms: dict[int, Pair]
    call_ms: dict[int, float]
    speed_up_total_time: dict[int, float]
    speed_up_mean_of_layers: dict[int, float]
    num_layers_in_mean: int
    largest_difference: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models side by side.

    Attributes:
        rows: `Row`s, in the order of the layers.
        totals: `Totals`.
        notes: What to know before the numbers are believed.
        machine: See `tf_ssl.machine`.
    """

    rows: list[Row]
    totals: Totals
    notes: list[str]
    machine: dict

    def to_json(self) -> str:
        """All of it; NaN and infinities as strings."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=1)

    def __str__(self):
        parts = [
            _render(_layer_table(self)),
            _render(_total_table(self.totals)),
            "\n".join(_lines(self)),
        ]
        return "\n".join(parts)


def _plain(value):
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _render(table) -> str:
    # As wide as it needs: a table in a file has no screen.
    console = Console(
        file=io.StringIO(), width=1000, color_system=None, legacy_windows=False
    )
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _layer_table(comparison):
    sizes = list(comparison.totals.latency)
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for name in ("layer", "class", "output", "kernel"):
        table.add_column(name, no_wrap=True)
    for name in (
        "parameters",
        "multiply-adds",
        *(f"ms alone, batch {n}" for n in sizes),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(
            row.name,
            _change(row, lambda side: _few(side.kinds, " + ")),
            _change(row, lambda side: _shapes(side.outputs)),
            _change(row, lambda side: _shapes(side.kernels)),
            _change(row, lambda side: f"{side.parameters:,}"),
            _change(row, lambda side: _count(side.multiply_adds)),
            *(_times(row, n) for n in sizes),
        )
    return table


def _change(row, text) -> str:
    """One value where nothing changed, `before → after`, "-" for no layer."""
    before, after = (
        "-" if side is None else text(side) for side in (row.before, row.after)
    )
    return before if before == after else f"{before} → {after}"


def _shapes(shapes) -> str:
    return _few(["×".join(map(str, shape)) for shape in shapes], ", ")


def _few(words, separator) -> str:
    """Some of them: a composite layer may hold many."""
    if len(words) > 4:
        words = [*words[:3], f"{len(words) - 3} more"]
    return separator.join(words)


def _count(number) -> str:
    return "" if number is None else f"{number:,}"


def _times(row, batch_size) -> str:
    def text(side):
        latency = side.latency.get(batch_size)
        return "?" if latency is None else f"{latency.median_ms:.3f}"

    speed_up = row.speed_up(batch_size)
    times = _change(row, text)
    return times if speed_up is None else f"{times} ({speed_up:.2f}x)"


def _total_table(totals):
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("total", no_wrap=True)
    for name in ("before", "after", "before / after"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, pair in (
        ("layers", totals.num_layers),
        ("parameters", totals.parameters),
        ("bytes of weights", totals.weight_bytes),
        ("multiply-adds of one example", totals.multiply_adds),
    ):
        table.add_row(
            name, f"{pair.before:,}", f"{pair.after:,}", f"{pair.ratio:.2f}x"
        )
    for n, pair in totals.latency.items():
        table.add_row(
            f"whole model, batch {n}, median ± spread",
            str(pair.before),
            str(pair.after),
            f"{pair.ratio:.2f}x",
        )
        layers = totals.sum_of_layers_ms[n]
        table.add_row(
            f"layers alone added up, batch {n}",
            f"{layers.before:.3f} ms",
            f"{layers.after:.3f} ms",
            f"{layers.ratio:.2f}x",
        )
    return table


def _meaning(difference) -> str:
    """What a difference says, in words."""
    if difference == 0:
        return " (the same to the bit)"
    if difference <= 1e-5:
        return " (rounding: they compute the same)"
    if difference <= 4e-2:
        return (
            " (more than float32 rounds, what shorter types may; else the "
            "models compute something a little different, as after a lower "
            "rank or more training)"
        )
    if math.isfinite(difference):
        return (
            " (they compute different things: expected where one was trained, "
            "pruned or decomposed further, not of tf_ssl.shrink)"
        )
    return " (NaN or infinite outputs: nothing can be compared; pass sample=)"


def _lines(comparison):
    totals, machine = comparison.totals, comparison.machine
    for n, speed_up in totals.speed_up_total_time.items():
        yield f"speed-up by total time, batch {n}: {speed_up:.2f}x"
    for n, speed_up in totals.speed_up_mean_of_layers.items():
        yield (
            f"mean of the ratios of {totals.num_layers_in_mean} layers alone, "
            f"batch {n} (the paper's speedup): {speed_up:.2f}x"
        )
    for name, difference in totals.largest_difference.items():
        yield (
            f"largest difference of {name}, max|a-b| / max|a|: "
            f"{difference:.1e}{_meaning(difference)}"
        )
    for n, milliseconds in totals.call_ms.items():
        yield (
            f"of each time alone, batch {n}: {milliseconds:.3f} ms for the "
            "call of a compiled function; spread: 75th less 25th percentile"
        )
    threads = machine["intra_op_threads"] or "one a core"
    yield (
        f"{machine['processor']}, {machine['cores']} core(s), threads: "
        f"{threads}, {'+'.join(machine['devices'])}, TensorFlow "
        f"{machine['tensorflow']}, Keras {machine['keras']}"
    )
    yield from comparison.notes
