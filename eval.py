"""Tests the model that train.py has left in a workdir.

    python eval.py --workdir=runs/lenet_mnist_terngrad

Takes model.keras, or the last checkpoint of a run that is not finished; the
data set is the one that the run was trained on.
"""

from __future__ import annotations

import os
import pathlib
import sys

# TensorFlow's notes on its start; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import keras
from absl import app, flags, logging

import train
from tf_terngrad import checkpoint


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
        500,
        "Images per step, >= 1.",
        lower_bound=1,
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
    """Prints the model, its test loss, error and accuracy; returns them."""
    # --- What the workdir holds
    try:
        workdir = pathlib.Path(options.workdir)
        trained_with = _trained_with(workdir)
        if options.data_dir:
            trained_with["data_dir"].value = options.data_dir
        dataset = train.open_dataset(trained_with)
        model, source = _load(workdir, trained_with, dataset)
    except (ValueError, OSError) as error:
        sys.exit(f"eval.py: {error}")

    # --- Test
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    result = model.evaluate(
        dataset.test(options.eval_batch_size), verbose=0, return_dict=True
    )

    # --- Report
    model.summary()
    print(
        f"model       {source}\n"
        f"parameters  {model.count_params():,}\n"
        f"data        {dataset.name}, {dataset.num_test:,} test images\n"
        f"test loss   {result['loss']:.4f}\n"
        f"test error  {1 - result['accuracy']:.2%}\n"
        f"accuracy    {result['accuracy']:.2%}",
        flush=True,
    )
    return result


def _trained_with(workdir: pathlib.Path) -> flags.FlagValues:
    if not workdir.is_dir():
        raise FileNotFoundError(f"No such workdir: {workdir}")
    if not (workdir / "flags.txt").is_file():
        raise FileNotFoundError(
            f"No flags.txt in {workdir}. Expected a workdir of train.py, with "
            "flags.txt and model.keras or checkpoints/"
        )
    return train.read_flags(workdir)


def _load(workdir, trained_with, dataset) -> tuple[keras.Model, str]:
    """The model, and where it comes from in words."""
    finished = workdir / "model.keras"
    folder = checkpoint.latest(workdir / "checkpoints")
    if finished.is_file():
        return keras.saving.load_model(finished, compile=False), str(finished)
    if folder is None:
        raise FileNotFoundError(
            f"No model in {workdir}: neither model.keras nor a checkpoint. The "
            "first checkpoint comes at the end of the first epoch"
        )
    model = train.build_model(trained_with, dataset)
    epoch = checkpoint.load(folder, model)
    return model, f"{folder} (not finished: {epoch} epoch(s) done)"


if __name__ == "__main__":
    define_flags()
    app.run(main)
