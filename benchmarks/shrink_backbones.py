"""Shrinks small random backbones of KerasHub, family by family.

    PYTHONPATH=. python benchmarks/shrink_backbones.py
      --output=docs/results/shrink_backbones

In each structure a third of the units is made dead, in one of several ways
(tests/tf_ssl/hub/planted.py): everything of a unit is zero ("all"), what makes
it ("out"), what reads it ("in"), or only the kernels that make it, while biases
and shifts live on ("constant"; what meets padding stays then). Prints how many
of them went, the largest difference of outputs between the model with its zeros
and the shrunk one, whether that loads in a process without keras_hub, whether
LiteRT runs it, and what was left, with the reason. Rows that --output already
holds are kept; a family that runs again replaces its own.

Needs keras-hub: requirements/no_deps.txt.
"""

import json
import pathlib

from absl import app, flags, logging

import tf_ssl
from tests.tf_ssl.hub import backbones, planted

_FAMILIES = flags.DEFINE_list("families", None, "Names; default: all.")
_MODES = flags.DEFINE_list("modes", [*planted.MODES], "Ways.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")
_TABLE = flags.DEFINE_bool(
    "table", False, "Only writes the table anew from the JSON in --output."
)
flags.register_validator(
    "modes",
    lambda modes: set(modes) <= set(planted.MODES),
    message=f"Expected some of {sorted(planted.MODES)}.",
)

_COLUMNS = (
    "family",
    "mode",
    "structures",
    "units",
    "planted",
    "removed",
    "difference",
    "parameters",
    "loads without KerasHub",
    "LiteRT",
    "left, and why",
)


def measure(entry, mode) -> dict:
    """One row; the small model is the same in all modes but "constant"."""
    whole = mode in ("all", "constant")
    report = planted.report(entry, mode, load=whole, litert=whole)
    # What the number of units is to be compared with.
    return report.to_dict() | {"known_units": entry.units}


def cells(row) -> list[str]:
    """Of the table; a dash where nothing was measured."""
    before, after = row["parameters"] or (None, None)
    return [
        row["family"],
        row["mode"],
        _number(row["structures"]),
        _number(row["units"]),
        _number(row["planted"]),
        _number(row["removed"])
        + (f" ({row['share']:.0%})" if row["planted"] else ""),
        _small(row["difference"]),
        f"{before:,} → {after:,}" if before else "–",
        _outcome(row, "load"),
        _outcome(row, "litert"),
        "; ".join(_left(row)) or "nothing",
    ]


def _number(value):
    return "–" if value is None else f"{value:,}"


def _small(value):
    return "–" if value is None else f"{value:.1e}"


def _outcome(row, step):
    if step in row["errors"]:
        return "no"
    value = row[f"{step}_difference"]
    if value is None:
        return "–"
    succeeded = row["loads" if step == "load" else "converts"]
    return f"{'yes' if succeeded else 'differs'}, {value:.1e}"


def _left(row):
    """What was left whole, dead units that stayed, errors: each reason once."""
    counts: dict[str, int] = {}
    for _, reason in row["skipped"]:
        counts[reason] = counts.get(reason, 0) + 1
    found = [f"{count} x {_cut(reason)}" for reason, count in counts.items()]
    counts = {}
    for _, count, reason in row["kept"]:
        counts[reason] = counts.get(reason, 0) + count
    found += [
        f"{count} dead units: {_cut(reason)}"
        for reason, count in counts.items()
    ]
    return found + [
        f"{step}: {_cut(error)}" for step, error in row["errors"].items()
    ]


def _cut(text, length=110):
    """On one line of a table."""
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= length else f"{text[:length]}…"


def table(results) -> str:
    """In markdown."""
    about = ", ".join(f"{k} {v}" for k, v in results["machine"].items())
    lines = [
        f"By `python benchmarks/shrink_backbones.py`; {about}, KerasHub "
        f"{results['keras_hub']}.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" * len(_COLUMNS) + "|",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in results["rows"]]
    return "\n".join(lines) + "\n"


def _write(output, results):
    output.mkdir(parents=True, exist_ok=True)
    (output / "backbones.json").write_text(json.dumps(results, indent=1) + "\n")
    (output / "table.md").write_text(table(results))


def main(argv):
    del argv
    # Each export writes a dozen lines.
    logging.set_verbosity(logging.ERROR)
    output = _OUTPUT.value and pathlib.Path(_OUTPUT.value)
    results = {"rows": []}
    if output and (output / "backbones.json").exists():
        results = json.loads((output / "backbones.json").read_text())
    if _TABLE.value:
        (output / "table.md").write_text(table(results))
        return
    import keras_hub

    known = backbones.families()
    names = _FAMILIES.value or list(known)
    for name in names:
        if name not in known:
            raise app.UsageError(
                f"Invalid value for flag --families. Expected some of "
                f"{sorted(known)}. Received: {name!r}"
            )
    results["machine"] = tf_ssl.machine()
    results["keras_hub"] = keras_hub.__version__
    for name in names:
        rows = []
        for mode in _MODES.value:
            rows.append(measure(known[name], mode))
            print(" | ".join(cells(rows[-1])), flush=True)
        # In the order of the families, whenever they ran.
        results["rows"] = sorted(
            [row for row in results["rows"] if row["family"] != name] + rows,
            key=lambda row: list(known).index(row["family"]),
        )
        if output:
            _write(output, results)


if __name__ == "__main__":
    app.run(main)
