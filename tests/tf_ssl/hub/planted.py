"""Plants dead units in a backbone, shrinks it, and says how far that went."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import tf_ssl

# Way -> roles of the weights that are zeroed. "out": all that makes a unit;
# "in": all that reads it; "constant": the kernels that make it, while biases
# and shifts live on.
MODES = {
    "all": ("out", "norm", "in"),
    "out": ("out", "norm"),
    "in": ("in",),
    "constant": ("out",),
}
SHARE = 1 / 3
BATCH = 3
# Of outputs, max|a - b| / max|a|: what rounding makes of a deep float32 model.
TOLERANCE = 5e-5
_ROOT = pathlib.Path(tf_ssl.__file__).resolve().parents[1]


@dataclasses.dataclass
class Report:
    """What became of one family in one mode; None: it did not come so far.

    Attributes:
        family: Its name.
        mode: Of `MODES`.
        structures: Number found, inputs not counted.
        units: Of these.
        planted: Units that were made dead.
        effect: Of that on the outputs, max|a - b| / max|a|; where it is next to
            nothing, the rest says nothing either.
        removed: Of the planted ones, those that went.
        difference: Largest difference of outputs between the model with its
            zeros and the small one.
        parameters: (before, after).
        skipped: (name, reason): what `find_structures` left whole.
        kept: (name, units, reason): dead units that stayed.
        load_difference: Between the small model and itself after saving and
            loading in a process without keras_hub.
        litert_difference: Between the small model and its LiteRT model.
        errors: Step -> what it raised; steps are "build", "find", "shrink",
            "load" and "litert".
        seconds: Step -> seconds.
    """

    family: str
    mode: str
    structures: int | None = None
    units: int | None = None
    planted: int | None = None
    effect: float | None = None
    removed: int | None = None
    difference: float | None = None
    parameters: tuple[int, int] | None = None
    skipped: list = dataclasses.field(default_factory=list)
    kept: list = dataclasses.field(default_factory=list)
    load_difference: float | None = None
    litert_difference: float | None = None
    errors: dict = dataclasses.field(default_factory=dict)
    seconds: dict = dataclasses.field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the planted units, those that went; 0 if there were none."""
        return (self.removed or 0) / self.planted if self.planted else 0.0

    @property
    def is_exact(self) -> bool:
        """Whether the small model computes what the model did."""
        return self.difference is not None and self.difference <= TOLERANCE

    @property
    def loads(self) -> bool:
        """Whether it loads without keras_hub, as the same."""
        return self.load_difference is not None and (
            self.load_difference <= TOLERANCE
        )

    @property
    def converts(self) -> bool:
        """Whether LiteRT runs it, as the same."""
        return self.litert_difference is not None and (
            self.litert_difference <= TOLERANCE
        )

    def failures(self) -> set[str]:
        """The steps that did not succeed."""
        return {
            step
            for step, succeeded in (
                ("shrink", self.is_exact),
                ("load", self.loads),
                ("litert", self.converts),
            )
            if not succeeded
        }

    def reasons(self) -> dict[str, int]:
        """Why something was left, and how often."""
        found: dict[str, int] = {}
        for _, reason in self.skipped:
            found[reason] = found.get(reason, 0) + 1
        for _, count, reason in self.kept:
            found[reason] = found.get(reason, 0) + count
        for step, error in self.errors.items():
            found[f"{step}: {error}"] = 1
        return found

    def to_dict(self) -> dict:
        """JSON-able."""
        return dataclasses.asdict(self) | {
            "share": self.share,
            "loads": self.loads,
            "converts": self.converts,
        }


def report(entry, mode: str = "all", load=True, litert=True) -> Report:
    """Builds, plants, shrinks, saves, loads and converts.

    Args:
        entry: Of `tests.tf_ssl.hub.backbones.families()`.
        mode: Of `MODES`.
        load: Whether to save, and to load in another process.
        litert: Whether to convert.
    """
    result = Report(entry.name, mode)
    try:
        small, inputs, actual = _shrunk(entry, result)
    except _StepFailed:
        return result
    with tempfile.TemporaryDirectory() as folder:
        if load:
            with contextlib.suppress(_StepFailed), _step(result, "load"):
                result.load_difference = load_elsewhere(
                    small, inputs, actual, pathlib.Path(folder)
                )
        if litert:
            with contextlib.suppress(_StepFailed), _step(result, "litert"):
                path = tf_ssl.export(
                    small, f"{folder}/model.tflite", "tflite", batch_size=1
                )
                # The last example: its mask has zeros.
                last = keras.tree.map_structure(lambda x: x[-1:], inputs)
                result.litert_difference = tf_ssl.check_export(
                    small, path, last
                )
    return result


def _shrunk(entry, result):
    """The small model, inputs and its flat outputs; fills in the report."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    with _step(result, "build"):
        model = fill(entry.build())
        inputs = entry.inputs(model, BATCH)
    with _step(result, "find"):
        structures = tf_ssl.find_structures(
            model, **with_length(tf_ssl.find_structures, entry.length)
        )
    result.skipped = [list(x) for x in structures.skipped]
    own = [s for s in structures if s.kind != "input"]
    result.structures = len(own)
    result.units = sum(s.size for s in own)
    whole = outputs(model, inputs)
    planted = plant(structures, result.mode)
    result.planted = sum(map(len, planted.values()))
    expected = outputs(model, inputs)
    result.effect = difference(whole, expected)
    with _step(result, "shrink"):
        # We measure the difference ourselves: a wrong model is a row as well.
        small = tf_ssl.shrink(
            model,
            sample=inputs,
            tolerance=1e-1,
            **with_length(tf_ssl.shrink, entry.length),
        )
        actual = outputs(small, inputs)
    result.parameters = (model.count_params(), small.count_params())
    result.difference = difference(expected, actual)
    result.kept = [list(x) for x in small.shrink_report.kept]
    result.removed = 0
    for name, units in planted.items():
        before, after = small.shrink_report.units.get(name, (0, 0))
        result.removed += min(before - after, len(units))
    return small, inputs, actual


class _StepFailed(Exception):
    """Its error is in the report."""


@contextlib.contextmanager
def _step(result, name):
    begin = time.perf_counter()
    try:
        yield
    except Exception as error:  # whatever: it is what the report is for
        message = " ".join(str(error).split())
        result.errors[name] = f"{type(error).__name__}: {message}"[:500]
        raise _StepFailed from error
    finally:
        result.seconds[name] = round(time.perf_counter() - begin, 3)


def fill(model, seed: int = 0):
    """Weights that all matter: no zero biases, no scales of one.

    Kernels are drawn anew with a variance of 1 over what they read; the small
    ones that transformers begin with would hide a wrong head in the rounding.
    """
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path or "int" in variable.dtype:
            continue
        name = variable.path.rsplit("/", 1)[-1]
        shape = tuple(variable.shape)
        noise = random.standard_normal(shape)
        if name in ("gamma", "scale") or name.endswith("variance"):
            variable.assign(1 + 0.1 * np.abs(noise))
        elif len(shape) < 2 or "bias" in name or name == "beta":
            variable.assign(0.2 * noise)
        else:
            variable.assign(noise / np.sqrt(_num_read(shape)))
    return model


def _num_read(shape) -> int:
    """Roughly: the elements that one output of a kernel sums over."""
    if len(shape) == 3:  # [units, heads, key] or [heads, key, units]
        return int(np.prod(shape)) // max(shape)
    if shape[-1] == 1:  # depthwise
        return int(np.prod(shape[:2]))
    return int(np.prod(shape[:-1]))


def plant(structures, mode: str, share: float = SHARE, seed: int = 5) -> dict:
    """Makes a share of the units of each structure dead.

    Args:
        structures: Of `tf_ssl.find_structures`; features of inputs stay.
        mode: Of `MODES`.
        share: In (0, 1); one unit of each structure stays at least, and one is
            dead at least where there are two.
        seed: Which ones.

    Returns:
        Name of a structure -> dead units.
    """
    random = np.random.default_rng(seed)
    planted = {}
    for structure in structures:
        if structure.kind == "input":
            continue
        count = min(max(1, round(share * structure.size)), structure.size - 1)
        units = random.permutation(structure.size)[:count]
        if not structure.of(MODES[mode]) or (
            mode == "out" and structure.roles == ("in",)
        ):
            continue  # no weights read it; or those that make it do not kill it
        for part in structure.of(MODES[mode]):
            if not (mode == "constant" and part.is_bias):
                part.zero(units)
        planted[structure.name] = units
    return planted


def with_length(function, length: int | None) -> dict:
    """`length=` where the function has such an argument and there is one."""
    if length is None or (
        "length" not in inspect.signature(function).parameters
    ):
        return {}
    return {"length": length}


def outputs(model, inputs) -> list[np.ndarray]:
    """Of an inference, flat."""
    return [
        keras.ops.convert_to_numpy(x)
        for x in keras.tree.flatten(model(inputs, training=False))
    ]


def difference(expected, actual) -> float:
    """Largest over the outputs; NaN if one is."""
    return float(
        np.max(
            [
                tf_ssl.relative_difference(a, b)
                for a, b in zip(expected, actual, strict=True)
            ]
        )
    )


# What the other process does. keras_hub is None in sys.modules: importing it,
# or a part of it, raises.
_LOAD = """
import pickle, sys
sys.modules["keras_hub"] = None
import json, keras, tf_ssl
with open("inputs.pickle", "rb") as file:
    inputs, expected = pickle.load(file)
try:
    model = keras.models.load_model("model.keras", compile=False)
except Exception as error:
    while not isinstance(error, ImportError) and (
        error.__cause__ or error.__context__
    ):
        error = error.__cause__ or error.__context__
    sys.exit(f"{type(error).__name__}: {error}")
actual = keras.tree.flatten(model(inputs, training=False))
print(json.dumps(max(
    tf_ssl.relative_difference(a, keras.ops.convert_to_numpy(b))
    for a, b in zip(expected, actual, strict=True)
)))
"""


def load_elsewhere(model, inputs, expected, folder: pathlib.Path) -> float:
    """Saves a model, and loads it in a process that has no keras_hub.

    Args:
        model: Keras model.
        inputs: Arrays in the structure that it takes.
        expected: Flat list of its outputs.
        folder: For the files.

    Returns:
        Largest difference of its outputs there.

    Raises:
        RuntimeError: The process failed; with the first cause of it.
    """
    model.save(folder / "model.keras")
    (folder / "inputs.pickle").write_bytes(pickle.dumps((inputs, expected)))
    result = subprocess.run(
        [sys.executable, "-c", _LOAD],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": str(_ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    return float(json.loads(result.stdout.splitlines()[-1]))
