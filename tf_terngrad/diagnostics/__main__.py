"""Draws the diagnostics of a run.

python -m tf_terngrad.diagnostics --workdir=RUN [--output=DIR] [--step=STEP]
"""

import argparse
import pathlib
import sys

from tf_terngrad.diagnostics import plot, records


def main(arguments: list[str] | None = None) -> None:
    """Reads RUN/diagnostics, writes PNGs, prints their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_terngrad.diagnostics",
        description="Draws what clipping and ternarizing did to gradients.",
    )
    parser.add_argument(
        "--workdir", type=pathlib.Path, required=True, help="folder of the run"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of the pictures; default: WORKDIR/diagnostics",
    )
    parser.add_argument(
        "--step",
        type=int,
        help="recorded step whose histograms are drawn; default: the last",
    )
    options = parser.parse_args(arguments)
    try:
        for path in draw(options.workdir, options.output, options.step):
            print(path)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"diagnostics: {error}")


def draw(
    workdir: pathlib.Path,
    output: pathlib.Path | None = None,
    step: int | None = None,
) -> list[pathlib.Path]:
    """Draws the records of a run; see `plot.draw`.

    Raises:
        ValueError: There are no records, or what is there is none.
    """
    directory = workdir / "diagnostics"
    found = records.read(directory)
    if not found:
        raise ValueError(
            f"{workdir} holds no diagnostics. Train with train.py "
            "--diagnostics_every=500, or with the callback "
            f"tg.callbacks.GradientDiagnostics({str(directory)!r}, batches)."
        )
    return plot.draw(found, output or directory, step)


if __name__ == "__main__":
    main()
