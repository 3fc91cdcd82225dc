"""Time of a training step over workers, links and exchanges.

    python -m tf_terngrad.perf_model --model=alexnet --workers=1..512 \
      --gpus_per_node=4 --network=ethernet1g --plot=alexnet.png

prints images a second with gradients in fp32, fp16 and three levels, the
latter with the exchange of least time. `--validate=FOLDER` compares the model
with results of benchmarks/exchange.py instead.
"""

import dataclasses
import json

from absl import app, flags
from rich import box, console, table

from tf_terngrad.perf_model import model, plot, profiles, validate

_MODEL = flags.DEFINE_enum(
    "model", "alexnet", sorted(profiles.MODELS), "Network."
)
_WORKERS = flags.DEFINE_string(
    "workers",
    "1..512",
    "Numbers of workers: a list such as 1,8,64, or 1..512: doubled each time.",
)
_GPUS_PER_NODE = flags.DEFINE_integer(
    "gpus_per_node", 4, "Workers on a node.", lower_bound=1
)
_NETWORK = flags.DEFINE_string(
    "network",
    "ethernet1g",
    f"Between nodes: {', '.join(profiles.NETWORKS)}, or alpha_s,bytes_per_s.",
)
_INSIDE = flags.DEFINE_string(
    "inside",
    None,
    "Inside a node: alpha_s,bytes_per_s. None: PCI Express with ethernet1g, "
    "NVLink with infiniband100g, else as --network.",
)
_GPU = flags.DEFINE_enum(
    "gpu",
    None,
    sorted(profiles.IMAGES_PER_S),
    "Published profile; None: gtx1080, with infiniband100g p100.",
)
_PROFILE = flags.DEFINE_string(
    "profile", None, "JSON file of a measured profile, in place of --gpu."
)
_ENCODE_NS = flags.DEFINE_float(
    "encode_ns", None, "Nanoseconds an element to encode.", lower_bound=0.0
)
_DECODE_NS = flags.DEFINE_float(
    "decode_ns", None, "Nanoseconds an element to decode.", lower_bound=0.0
)
_CALL_S = flags.DEFINE_float(
    "call_s",
    model.HOROVOD_CALL_S,
    "Seconds of a collective before anything moves.",
    lower_bound=0.0,
)
_PLOT = flags.DEFINE_string("plot", None, "Image file to write.")
_JSON = flags.DEFINE_boolean("json", False, "Print JSON in place of a table.")
_VALIDATE = flags.DEFINE_list(
    "validate", None, "Result files or folders of benchmarks/exchange.py."
)


def parse_workers(text: str) -> list[int]:
    """Numbers of workers.

    >>> parse_workers("1..8")
    [1, 2, 4, 8]
    >>> parse_workers("2,6")
    [2, 6]
    """
    error = ValueError(
        "Invalid value for --workers. Expected integers >= 1 such as 1,8,64, "
        f"or 1..512. Received: {text}"
    )
    first, dots, last = text.partition("..")
    parts = [first, last] if dots else text.split(",")
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise error
    numbers = [int(part) for part in parts]
    if not dots:
        return numbers
    if numbers[0] > numbers[1]:
        raise error
    doubled = [numbers[0]]
    while 2 * doubled[-1] <= numbers[1]:
        doubled.append(2 * doubled[-1])
    return doubled


def parse_channel(flag: str, text: str) -> model.Channel:
    """A channel by name, or `alpha_s,bytes_per_s`."""
    if text in profiles.NETWORKS:
        return profiles.NETWORKS[text]
    try:
        alpha, rate = map(float, text.split(","))
        return model.Channel(alpha, rate)
    except ValueError as error:
        raise ValueError(
            f"Invalid value for --{flag}. Expected one of "
            f"{', '.join(profiles.NETWORKS)}, or alpha_s,bytes_per_s, both "
            f"> 0. Received: {text}"
        ) from error


def predict(
    elements: int,
    num_tensors: int,
    profile: profiles.Profile,
    clusters: list[model.Cluster],
) -> list[dict]:
    """One row for each cluster, of seconds and images a second.

    Args:
        elements: Of all gradients.
        num_tensors: Gradients.
        profile: Of one worker.
        clusters: `model.Cluster`s.

    Returns:
        Dicts with workers, exchange (the ternary one of least time), and for
        fp32, fp16 and ternary: images_per_s, step_s and comm_s.
    """
    rows = []
    for cluster in clusters:
        best = model.best_ternary(
            elements, num_tensors, cluster, profile.kernels
        )
        times = {
            name: model.step_time(
                best if name == "ternary" else name,
                elements,
                num_tensors,
                cluster,
                profile.kernels,
                profile.compute_s,
            )
            for name in (*model.FLOAT_EXCHANGES, "ternary")
        }
        images = cluster.num_workers * profile.batch_size
        rows.append(
            {
                "workers": cluster.num_workers,
                "exchange": best,
                "step_s": {k: t.total_s for k, t in times.items()},
                "comm_s": {k: t.exchange_s for k, t in times.items()},
                "images_per_s": {
                    k: images / t.total_s for k, t in times.items()
                },
            }
        )
    return rows


def _profile():
    if _PROFILE.value is not None:
        profile = profiles.from_file(_PROFILE.value)
    else:
        gpu = _GPU.value or profiles.GPUS.get(_NETWORK.value, "gtx1080")
        profile = profiles.of_gpu(gpu, _MODEL.value)
    changes = {}
    if _ENCODE_NS.value is not None:
        changes["encode"] = 1e-9 * _ENCODE_NS.value
    if _DECODE_NS.value is not None:
        changes["decode"] = 1e-9 * _DECODE_NS.value
    kernels = dataclasses.replace(profile.kernels, **changes)
    return dataclasses.replace(profile, kernels=kernels)


def _clusters():
    network = parse_channel("network", _NETWORK.value)
    inside = profiles.INSIDE.get(_NETWORK.value, network)
    if _INSIDE.value is not None:
        inside = parse_channel("inside", _INSIDE.value)
    return [
        model.Cluster(n, network, inside, _GPUS_PER_NODE.value, _CALL_S.value)
        for n in parse_workers(_WORKERS.value)
    ]


def _print(headers, rows):
    grid = table.Table(*headers, box=box.SIMPLE)
    for column in grid.columns:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        grid.add_row(*row)
    console.Console(width=100, highlight=False).print(grid)


def _print_validation():
    rows = validate.compare(validate.load(_VALIDATE.value))
    if _JSON.value:
        print(json.dumps(rows, indent=1))
        return
    headers = "payload link workers exchange measured predicted error"
    _print(
        headers.split(),
        [
            (
                row["payload"],
                row["link"],
                str(row["workers"]),
                row["exchange"],
                f"{row['measured_ms']:.2f} ms",
                f"{row['predicted_ms']:.2f} ms",
                f"{100 * row['error']:+.0f} %",
            )
            for row in rows
        ],
    )
    within = sum(abs(row["error"]) <= 0.15 for row in rows)
    print(f"within 15 %: {within} of {len(rows)}")


def main(argv):
    """Prints the table."""
    if len(argv) > 1:
        raise app.UsageError("Too many command-line arguments.")
    if _VALIDATE.value is not None:
        _print_validation()
        return
    try:
        profile, clusters = _profile(), _clusters()
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    network = profiles.MODELS[_MODEL.value]
    rows = predict(network.elements, network.num_tensors, profile, clusters)
    title = (
        f"{_MODEL.value}, {_NETWORK.value}, {_GPUS_PER_NODE.value} a node, "
        f"{profile.name}, batch {profile.batch_size} a worker"
    )
    if _PLOT.value is not None:
        plot.save(_PLOT.value, rows, title)
    if _JSON.value:
        print(json.dumps({"title": title, "rows": rows}, indent=1))
        return
    print(
        f"{title}: {network.elements:,} elements, {profile.images_per_s:,.0f} "
        "images/s of one alone; a model, nothing here was measured"
    )
    _print(
        [
            "workers",
            "fp32 images/s",
            "fp16 images/s",
            "ternary images/s",
            "exchange",
            "times fp32",
            "times fp16",
        ],
        [_cells(row) for row in rows],
    )


def _cells(row):
    images = row["images_per_s"]
    return (
        str(row["workers"]),
        *(f"{images[name]:,.0f}" for name in ("fp32", "fp16", "ternary")),
        row["exchange"] if row["workers"] > 1 else "none",
        f"{images['ternary'] / images['fp32']:.2f}",
        f"{images['ternary'] / images['fp16']:.2f}",
    )


if __name__ == "__main__":
    app.run(main)
