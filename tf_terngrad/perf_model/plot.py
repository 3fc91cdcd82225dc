"""The talk's figure: images a second over workers."""

import pathlib


def save(path: str, rows: list[dict], title: str) -> None:
    """Writes a plot of throughput over workers.

    Args:
        path: Image file; its ending decides the format.
        rows: As `perf_model.__main__.predict` returns them.
        title: Above the plot.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends import backend_agg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Install it: pip install matplotlib, or "
            f"leave out --plot. ({error})"
        ) from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    backend_agg.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    workers = [row["workers"] for row in rows]
    one = rows[0]["images_per_s"]["fp32"] / workers[0]
    for name, marker in (("fp32", "o"), ("fp16", "s"), ("ternary", "^")):
        axes.plot(
            workers,
            [row["images_per_s"][name] for row in rows],
            marker=marker,
            label=name,
        )
    if workers[0] == 1:
        axes.plot(workers, [one * n for n in workers], "k:", label="linear")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(workers, [str(n) for n in workers])
    axes.set_xlabel("workers")
    axes.set_ylabel("images a second")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
