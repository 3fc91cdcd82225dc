"""Tests the model that train.py has left in a workdir.

    python eval.py --workdir=runs/lenet_mnist_terngrad

Takes model.keras, or the last checkpoint of a run that is not finished; the
data set is the one that the run was trained on. Writes workdir/result.json,
from which `python -m tf_ssl.sweep` makes a point.

    python eval.py --workdir=runs/ssl_lenet3_finetune --shrink --export=tflite

also writes workdir/shrunk.keras, the model without the units that it does not
need, compares the two, and exports the smaller one.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

# TensorFlow's notes on its start; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import keras
from absl import app, flags, logging

import tf_ssl
import train
from models.run import tasks
from tf_terngrad import checkpoint

# What --export writes into the workdir.
_EXPORTS = {
    "savedmodel": "savedmodel",
    "tflite": "model.tflite",
    "onnx": "model.onnx",
}


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines eval.py's flags in `to`."""
    flags.DEFINE_string(
        "workdir", None, "Folder that train.py wrote; required.", flag_values=to
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "TFDS's data folder. Default: that of the training.",
        flag_values=to,
    )
    flags.DEFINE_integer(
        "eval_batch_size",
        None,
        "Examples per step, >= 1. Default: 500 images, 60 questions, one row "
        "of words.",
        lower_bound=1,
        flag_values=to,
    )
    flags.DEFINE_bool(
        "shrink",
        False,
        "Removes the units that the model does not need, tests what remains, "
        "compares the two and writes workdir/shrunk.keras.",
        flag_values=to,
    )
    flags.DEFINE_bool(
        "latency",
        False,
        "Times the inference of 1 and of 32 images or questions, of 10 rows of "
        "30 words and of one; --shrink does so, too.",
        flag_values=to,
    )
    flags.DEFINE_enum(
        "export",
        None,
        list(_EXPORTS),
        "Writes the model, with --shrink the smaller one, in that format into "
        "the workdir and compares what it computes.",
        flag_values=to,
    )
    flags.mark_flag_as_required("workdir", flag_values=to)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    evaluate(flags.FLAGS)


def evaluate(options: flags.FlagValues) -> dict[str, float]:
    """Prints the model and what it does on test data; returns that.

    With --shrink those of the smaller model.
    """
    # --- What the workdir holds
    try:
        workdir = pathlib.Path(options.workdir)
        trained_with = _trained_with(workdir)
        if options.data_dir:
            trained_with["data_dir"].value = options.data_dir
        task = tasks.open_task(trained_with)
        model, source = _load(workdir, task)
    except (ValueError, OSError) as error:
        sys.exit(f"eval.py: {error}")

    latency = {}
    try:
        result = _test(model, source, task, options.eval_batch_size)
        if options.shrink:
            shrunk = tf_ssl.shrink(model)
            path = workdir / "shrunk.keras"
            shrunk.save(path)
            print(f"\n{shrunk.shrink_report}\n")
            result = _test(shrunk, path, task, options.eval_batch_size)
            compared = tf_ssl.compare(model, shrunk, **task.timed())
            print(f"\n{compared}", flush=True)
            latency = {n: p.after for n, p in compared.totals.latency.items()}
            model = shrunk
        elif options.latency:
            latency = tf_ssl.measure_latency(model, **task.timed())
            for batch, measured in latency.items():
                print(f"latency     {measured}, batch {batch}", flush=True)
        _write_result(workdir / "result.json", model, task, result, latency)
        if options.export:
            _export(model, workdir / _EXPORTS[options.export], options, task)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"eval.py: {error}")
    return result


def _test(model, source, task, batch_size) -> dict[str, float]:
    """Prints and returns what a test says."""
    result, text = task.test(model, batch_size)
    model.summary()
    print(
        f"model       {source}\nparameters  {model.count_params():,}\n{text}",
        flush=True,
    )
    return result


def _write_result(path, model, task, result, latency) -> None:
    """Writes what was found of the model that is left."""
    table = tf_ssl.multiply_adds(model, sample=task.sample(1))
    values = {
        **result,
        "multiply_adds": table.total,
        "parameters": model.count_params(),
    }
    if "accuracy" in result:
        values["error"] = 1 - result["accuracy"]
    if latency:
        values["latency_ms"] = latency[min(latency)].median_ms
    path.write_text(json.dumps(values, indent=1) + "\n")


def _export(model, path, options, task) -> None:
    """Writes the model and compares what is computed there."""
    tf_ssl.export(model, path, format=options.export)
    sample = task.sample(options.eval_batch_size)
    difference = tf_ssl.check_export(model, path, sample)
    print(
        f"export      {path}, largest difference of outputs {difference:.1e}",
        flush=True,
    )


def _trained_with(workdir: pathlib.Path) -> flags.FlagValues:
    if not workdir.is_dir():
        raise FileNotFoundError(f"No such workdir: {workdir}")
    if not (workdir / "flags.txt").is_file():
        raise FileNotFoundError(
            f"No flags.txt in {workdir}. Expected a workdir of train.py, with "
            "flags.txt and model.keras or checkpoints/"
        )
    return train.read_flags(workdir)


def _load(workdir, task) -> tuple[keras.Model, str]:
    """The model, and where it comes from in words."""
    finished = workdir / "model.keras"
    folder = checkpoint.latest(workdir / "checkpoints")
    if finished.is_file():
        model = keras.saving.load_model(finished, compile=False)
        return task.for_inference(model), str(finished)
    if folder is None:
        raise FileNotFoundError(
            f"No model in {workdir}: neither model.keras nor a checkpoint. The "
            "first checkpoint comes at the end of the first epoch"
        )
    model = task.build_model()
    epoch = checkpoint.load(folder, model)
    model = task.for_inference(task.network(model))
    return model, f"{folder} (not finished: {epoch} epoch(s) done)"


if __name__ == "__main__":
    define_flags()
    app.run(main)
