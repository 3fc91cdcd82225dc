"""The model beside what benchmarks/exchange.py measured.

Nothing is fitted to the times of exchanges: bandwidth, latency and the share of
time in which the cores are busy are those of plain TCP, the cost of a call is
that of one small allreduce, on idle cores and beside our kernels, computation
was timed with no network under it, in the same rounds as the exchanges; all on
the same workers. For fp16 the sum of halves inside Gloo, which has no vector
code, is left out: it cannot be timed alone.
"""

import json
import pathlib

from tf_terngrad import wire
from tf_terngrad.link import Link
from tf_terngrad.perf_model import model

# Names in the results.
_EXCHANGES = {
    "horovod fp32": "fp32",
    "horovod fp16": "fp16",
    "ternary allreduce": "allreduce",
    "ternary allgather": "allgather",
    "ternary alltoall": "alltoall",
}


def load(paths: list[str]) -> list[dict]:
    """Cells of a list of files or folders of benchmarks/exchange.py.

    Raises:
        ValueError: There are none, or a file is something else.
    """
    files = []
    for path in map(pathlib.Path, paths):
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(
            "Invalid value for --validate. Expected JSON files of "
            f"benchmarks/exchange.py. Received: {','.join(paths)}"
        )
    cells = [json.loads(file.read_text()) for file in files]
    for file, cell in zip(files, cells, strict=True):
        if not isinstance(cell, dict) or not {
            "measured_link",
            "compute_ms",
        } <= set(cell):
            raise ValueError(
                f"Invalid file {file}. Expected a result of "
                "benchmarks/exchange.py, with measured_link and compute_ms."
            )
    return cells


def cluster(cell: dict) -> model.Cluster:
    """Workers and link of a cell, as measured without the exchanges."""
    link = cell["measured_link"]
    channel = model.Channel(link["alpha_s"], link["bytes_per_s"])
    n = cell["workers"]
    idle = link["small_allreduce_s"]
    # Older results do not have the last two.
    busy = link.get("small_allreduce_busy_s", idle)
    # The latency of its rounds is in the time of the small allreduce.
    call_s, busy_call_s = (
        max(0.0, small - 2 * (n - 1) * link["alpha_s"])
        for small in (idle, busy)
    )
    return model.Cluster(
        n,
        channel,
        channel,
        call_s=call_s,
        busy_call_s=busy_call_s,
        busy_share=link.get("busy_share", 0.0),
    )


def _predict(cell, exchange) -> model.StepTime:
    """With the computation that was timed alone."""
    kernels = {exchange: cell["compute_ms"][exchange]}
    if exchange in model.TERNARY_EXCHANGES:
        scalers = cell["kernels_ms"]["scalers"]
        kernels = {
            "scalers": scalers,
            "encode": kernels[exchange] - scalers,  # and all that follows
        }
    each = {k: 1e-3 * ms / cell["elements"] for k, ms in kernels.items()}
    return model.step_time(
        exchange,
        cell["elements"],
        cell["tensors"],
        cluster(cell),
        model.Kernels(**each),
        parts=wire.choose_parts([cell["elements"]], Link()),
    )


def compare(cells: list[dict]) -> list[dict]:
    """Measured and predicted milliseconds of each cell and exchange.

    Returns:
        Rows with link, workers, payload, exchange, measured_ms, predicted_ms
        and error, the predicted time over the measured one minus 1.
    """
    rows = []
    for cell in cells:
        for name, exchange in _EXCHANGES.items():
            if name not in cell["methods"]:
                continue
            measured = cell["methods"][name]["median_ms"]
            predicted = 1e3 * _predict(cell, exchange).exchange_s
            rows.append(
                {
                    "link": cell["link"],
                    "workers": cell["workers"],
                    "payload": cell["payload"],
                    "exchange": name,
                    "measured_ms": measured,
                    "predicted_ms": predicted,
                    "error": predicted / measured - 1,
                }
            )
    return rows
