"""Records of diagnostics as pictures."""

import pathlib

from tf_terngrad.diagnostics import plot_histograms, plot_steps


def draw(
    records: list[dict], directory: pathlib.Path, step: int | None = None
) -> list[pathlib.Path]:
    """Draws all pictures.

    - `histograms_<page>.png`: gradients of one step before and after
    - `zero_fraction.png`, `clipping_length.png`, `clipping_angle.png`: over
      steps, a panel a variable
    - `bounds.png`: gradient bounds over steps, of the whole gradient;
      `bounds_per_variable.png`: how far each variable's are from the standard

    Args:
        records: From `records.read`, at least one.
        directory: Where to; it is made.
        step: Recorded step whose histograms are drawn; None: the last.

    Returns:
        Paths of the files.

    Raises:
        ImportError: There is no Matplotlib.
        ValueError: `step` is not recorded.
    """
    plt = _pyplot()
    steps = [int(record["step"]) for record in records]
    if step is not None and step not in steps:
        raise ValueError(
            f"Invalid value for argument step. Expected one of {steps}. "
            f"Received: step={step}"
        )
    chosen = records[-1 if step is None else steps.index(step)]
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("histograms_*.png"):
        old.unlink()  # of a model with more variables
    paths = []

    def save(name, figure):
        figure.savefig(directory / name, dpi=110)
        plt.close(figure)
        paths.append(directory / name)

    for i, page in enumerate(plot_histograms.pages(plt, chosen)):
        save(f"histograms_{i + 1}.png", page)
    save("zero_fraction.png", plot_steps.zero_fraction(plt, records))
    save("clipping_length.png", plot_steps.clipping_length(plt, records))
    save("clipping_angle.png", plot_steps.clipping_angle(plt, records))
    save("bounds.png", plot_steps.bounds(plt, records))
    save("bounds_per_variable.png", plot_steps.variable_bounds(plt, records))
    return paths


def _pyplot():
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots need Matplotlib: pip install matplotlib"
        ) from error
    matplotlib.use("Agg")  # files only, without a screen
    import matplotlib.pyplot as plt

    return plt
