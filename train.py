"""Trains a model, on one worker or many, with gradients of three levels.

    python train.py --flagfile=models/recipes/lenet_mnist_terngrad.flags
    horovodrun -np 2 python train.py --flagfile=...

Writes --workdir: flags.txt, metrics.jsonl, logs/ (TensorBoard), checkpoints/,
model.keras. The same command goes on where it was stopped. `eval.py --workdir`
tests the model.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import signal
import sys

# TensorFlow's notes on its start, once per worker; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import keras
import tensorflow as tf
from absl import app, flags, logging

import custom_ops
import models
import tf_terngrad as tg
from models import run
from models.seeds import seed_streams
from tf_terngrad import checkpoint

# Flags that a run may change when it goes on; the others say what it computes.
_FREE_FLAGS = {
    "data_dir",
    "eval_batch_size",
    "intra_threads",
    "keep_checkpoints",
    "workdir",
}

_GO_ON = "The same command goes on from the last checkpoint."


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines train.py's flags in `to`."""

    def validator(name, check, message):
        flags.register_validator(name, check, message, flag_values=to)

    # --- Run
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run, shared by all workers; required.",
        flag_values=to,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "Passes over the training split, >= 1. Or: --steps.",
        lower_bound=1,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "steps",
        None,
        "Steps of each worker, >= 1. Or: --epochs.",
        lower_bound=1,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "seed",
        0,
        "Of weights, data order, dropout, ternarizing; >= 0.",
        lower_bound=0,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "keep_checkpoints",
        2,
        "How many checkpoints stay, >= 1.",
        lower_bound=1,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "intra_threads",
        0,
        "Threads of an op, >= 1. 0: the host's cores / its workers.",
        lower_bound=0,
        flag_values=to,
    )

    # --- Model and data
    flags.DEFINE_enum(
        "model", "lenet", models.names(), "What to train.", flag_values=to
    )
    flags.DEFINE_float(
        "dropout",
        None,
        "Rate in [0, 1), of models that have dropout. "
        "Default: the model's own.",
        flag_values=to,
    )
    flags.DEFINE_string(
        "dataset",
        "mnist",
        "TFDS's name of an image classification set.",
        flag_values=to,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "TFDS's data folder. Default: data/ beside train.py.",
        flag_values=to,
    )
    flags.DEFINE_integer(
        "image_size",
        0,
        "Height and width to resize images to, pixels. 0: as they are.",
        lower_bound=0,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "batch_size",
        32,
        "Images per worker and step, >= 1.",
        lower_bound=1,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "eval_batch_size",
        500,
        "Images per worker and step of a test, >= 1.",
        lower_bound=1,
        flag_values=to,
    )

    # --- Optimizer
    flags.DEFINE_enum(
        "optimizer",
        "momentum",
        run.optimizers.NAMES,
        "What updates weights.",
        flag_values=to,
    )
    flags.DEFINE_float(
        "learning_rate", 0.01, "At the start, > 0.", flag_values=to
    )
    flags.DEFINE_enum(
        "lr_schedule",
        "constant",
        run.optimizers.SCHEDULES,
        "polynomial: lr * sqrt(1 - t/T), as the paper; cosine: to 0; "
        "exponential: times --lr_decay_rate every --lr_decay_epochs.",
        flag_values=to,
    )
    flags.DEFINE_float("lr_decay_rate", 0.1, "In (0, 1].", flag_values=to)
    flags.DEFINE_float("lr_decay_epochs", 20.0, "Epochs, > 0.", flag_values=to)
    flags.DEFINE_float(
        "momentum",
        0.9,
        "Of optimizers momentum and nesterov, in [0, 1).",
        flag_values=to,
    )
    flags.DEFINE_float(
        "weight_decay",
        0.0,
        "Decoupled: lr * this * weight is taken from each "
        "kernel at each update; >= 0.",
        lower_bound=0.0,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "accumulate",
        1,
        "Steps whose gradients are summed before one "
        "exchange and update, >= 1.",
        lower_bound=1,
        flag_values=to,
    )

    # --- Exchange of gradients
    flags.DEFINE_enum(
        "compression",
        "terngrad",
        ["none", "fp16", "terngrad"],
        "How gradients travel. The flags below are terngrad's.",
        flag_values=to,
    )
    flags.DEFINE_float(
        "clip_factor",
        2.5,
        "Clips at that many standard deviations, > 0. 0: no clipping.",
        lower_bound=0.0,
        flag_values=to,
    )
    flags.DEFINE_enum(
        "clip_mode",
        "own",
        ["own", "shared"],
        "Whose clip level: each "
        "worker's own, as the paper, or the shared scaler.",
        flag_values=to,
    )
    flags.DEFINE_integer(
        "bucket_size",
        0,
        "Elements that share a scaler, >= 1. 0: one scaler per tensor.",
        lower_bound=0,
        flag_values=to,
    )
    flags.DEFINE_integer(
        "min_size",
        0,
        "Tensors of fewer elements travel in float, >= 0.",
        lower_bound=0,
        flag_values=to,
    )
    flags.DEFINE_list(
        "exempt",
        [],
        "Patterns of variables that travel in float, such as */bias,logits/*",
        flag_values=to,
    )
    flags.DEFINE_enum(
        "exchange",
        "auto",
        ["auto", "allreduce"],
        "The collective.",
        flag_values=to,
    )

    flags.mark_flag_as_required("workdir", flag_values=to)
    flags.register_multi_flags_validator(
        ["epochs", "steps"],
        lambda given: (given["epochs"] is None) != (given["steps"] is None),
        "Pass one of --epochs and --steps.",
        flag_values=to,
    )
    validator("learning_rate", lambda x: 0 < x < math.inf, "must be > 0")
    validator("lr_decay_rate", lambda x: 0 < x <= 1, "must be in (0, 1]")
    validator("lr_decay_epochs", lambda x: 0 < x < math.inf, "must be > 0")
    validator("momentum", lambda x: 0 <= x < 1, "must be in [0, 1)")


def read_flags(workdir: str | pathlib.Path) -> flags.FlagValues:
    """Returns the flags that a run was started with.

    Raises:
      ValueError: flags.txt holds a flag that train.py does not have.
      OSError: there is no flags.txt.
    """
    path = pathlib.Path(workdir) / "flags.txt"
    lines = path.read_text().splitlines()
    values = flags.FlagValues()
    define_flags(values)
    try:
        values(["train.py", *lines])
    except flags.Error as error:
        raise ValueError(f"Cannot read {path}. {error}") from error
    return values


def open_dataset(options: flags.FlagValues) -> models.data.ImageClassification:
    """Opens the data set that the flags name."""
    size = options.image_size
    return models.data.load(
        options.dataset, options.data_dir, (size, size) if size else None
    )


def build_model(
    options: flags.FlagValues, dataset: models.data.ImageClassification
) -> keras.Model:
    """Builds the model that the flags name, for the images of a data set."""
    own = {} if options.dropout is None else {"dropout": options.dropout}
    return models.build(
        options.model,
        input_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
        seed=options.seed,
        **own,
    )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # horovodrun ends all workers so when one of them is lost.
    signal.signal(signal.SIGTERM, _stop)
    train(flags.FLAGS)


def train(options: flags.FlagValues) -> None:
    """Trains as the flags say."""
    workdir = pathlib.Path(options.workdir)
    checkpoints = workdir / "checkpoints"

    # --- Checks, before any work
    with _errors_in_one_line():
        dataset = open_dataset(options)
        compression = _compression(options)
        run.workdir.check_writable(workdir)
        if checkpoint.latest(checkpoints) or (workdir / "model.keras").exists():
            _check_same_run(options)

    # --- Workers
    # A worker that waits for a lost one says so, and then gives up.
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", "30")
    os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", "120")
    with _errors_in_one_line():
        tg.init()
        rank, size = tg.rank(), tg.size()
        batch_size = options.batch_size * size
        steps_per_epoch = dataset.steps_per_epoch(options.batch_size, size)
        # Evaluation averages over workers; each needs something to evaluate.
        if dataset.test_examples(size - 1, size) == 0:
            raise ValueError(
                f"{dataset.num_test} test images are too few for {size} workers"
            )
    _use_own_device_and_threads(options.intra_threads)  # before any tensor
    epochs = options.epochs or -(-options.steps // steps_per_epoch)
    steps = options.steps or epochs * steps_per_epoch

    # --- Model, optimizer, and where the run stands
    with _errors_in_one_line():
        model = build_model(options, dataset)
    seed_streams(model, options.seed, rank)
    model.compile(
        tg.DistributedOptimizer(
            _optimizer(options, steps, steps_per_epoch),
            compression,
            gradient_accumulation_steps=(
                options.accumulate if options.accumulate > 1 else None
            ),
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        auto_scale_loss=False,
    )
    with _errors_in_one_line():
        model.optimizer.build(model.trainable_variables)
        run.workdir.check_space(workdir, model, options.keep_checkpoints)
        first_epoch = checkpoint.restore(checkpoints, model)
    first_step = min(first_epoch * steps_per_epoch, steps)
    if rank == 0:
        _write_flags(options)
        _introduce(options, dataset, model, epochs, steps_per_epoch)
    if first_epoch >= epochs:
        if rank == 0:
            run.workdir.save_model(model, workdir / "model.keras")
            print(
                f"The run is finished: {workdir} holds epoch {first_epoch} of "
                f"{epochs}. Test it with: python eval.py --workdir={workdir}",
                flush=True,
            )
        return
    if first_epoch and rank == 0:
        print(f"Going on after epoch {first_epoch} of {epochs}.", flush=True)

    # --- Training
    callbacks = [
        tg.callbacks.BroadcastVariables(statistics=first_epoch == 0),
        tg.callbacks.AverageStatistics(),
        tg.callbacks.MetricAverage(dataset.test_examples(rank, size)),
        tg.callbacks.ExchangeMetrics(),
        tg.callbacks.ReplicaCheck(),
        run.StopAtStep(steps, first_step),
        run.Throughput(batch_size, first_step),
    ]
    if rank == 0:
        callbacks += [
            run.MetricsLog(workdir / "metrics.jsonl", first_epoch),
            keras.callbacks.TensorBoard(workdir / "logs", write_graph=False),
            run.Progress(
                epochs,
                steps_per_epoch,
                batch_size,
                write=_write,
                is_terminal=sys.stdout.isatty(),
                first_epoch=first_epoch,
                steps=steps,
            ),
        ]
    callbacks.append(
        checkpoint.Checkpoint(checkpoints, keep=options.keep_checkpoints)
    )
    with _lost_worker_in_one_line():
        model.fit(
            dataset.train(
                options.batch_size, rank, size, options.seed, first_epoch
            ),
            validation_data=dataset.test(options.eval_batch_size, rank, size),
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps_per_epoch,
            shuffle=False,  # the data set has its own order
            callbacks=callbacks,
            verbose=0,
        )

    # --- Result
    if rank == 0:
        run.workdir.save_model(model, workdir / "model.keras")
        print(f"Wrote {workdir / 'model.keras'}", flush=True)


def _compression(options):
    if options.compression == "none":
        return tg.NoCompression()
    if options.compression == "fp16":
        return tg.FP16()
    return tg.TernGrad(
        clip_factor=options.clip_factor or None,
        clip_mode=options.clip_mode,
        bucket_size=options.bucket_size or None,
        min_size=options.min_size,
        exempt=tuple(options.exempt),
        exchange=options.exchange,
        seed=options.seed,
    )


def _optimizer(options, steps, steps_per_epoch):
    # Schedules count updates, of which there is one in `accumulate` steps.
    learning_rate = run.optimizers.schedule(
        options.lr_schedule,
        options.learning_rate,
        steps=max(1, steps // options.accumulate),
        decay_rate=options.lr_decay_rate,
        decay_steps=max(
            1,
            round(
                options.lr_decay_epochs * steps_per_epoch / options.accumulate
            ),
        ),
    )
    return run.optimizers.build(
        options.optimizer,
        learning_rate,
        options.momentum,
        options.weight_decay,
    )


def _use_own_device_and_threads(intra_threads: int) -> None:
    """Shares the host among its workers: a GPU each, or a part of the cores."""
    gpus = tf.config.list_physical_devices("GPU")
    cores = len(os.sched_getaffinity(0))
    try:
        if gpus:
            own = gpus[tg.local_rank() % len(gpus)]
            tf.config.set_visible_devices(own, "GPU")
            tf.config.experimental.set_memory_growth(own, True)
        if intra_threads or tg.local_size() > 1:
            tf.config.threading.set_intra_op_parallelism_threads(
                intra_threads or max(1, cores // tg.local_size())
            )
            tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        logging.warning(
            "TensorFlow runs already: its threads and devices stay as they are."
        )


def _values(options: flags.FlagValues) -> dict:
    """Name -> value of train.py's own flags (absl and TFDS define others)."""
    own = flags.FlagValues()
    define_flags(own)
    return {name: options[name].value for name in own}


def _check_same_run(options: flags.FlagValues) -> None:
    free = set(_FREE_FLAGS)
    if options.lr_schedule == "constant":
        free |= {"epochs", "steps"}  # no schedule stretches with them
    before, now = (
        {k: v for k, v in _values(each).items() if k not in free}
        for each in (read_flags(options.workdir), options)
    )
    run.workdir.check_flags(options.workdir, before, now)


def _write_flags(options: flags.FlagValues) -> None:
    lines = [
        options[name].serialize()
        for name, value in sorted(_values(options).items())
        if value is not None
    ]
    path = pathlib.Path(options.workdir) / "flags.txt"
    path.write_text("".join(f"{line}\n" for line in lines if line))


def _introduce(options, dataset, model, epochs, steps_per_epoch) -> None:
    size = tg.size()
    _write(
        f"model        {options.model}, {model.count_params():,} parameters\n"
        f"data         {dataset.name}, {dataset.num_train:,} training and "
        f"{dataset.num_test:,} test images\n"
        f"workers      {size}, {options.batch_size} images each a step, "
        f"{options.batch_size * size} in all\n"
        f"training     {epochs} epochs of {steps_per_epoch} steps, "
        f"{options.optimizer}, learning rate {options.learning_rate:g} "
        f"{options.lr_schedule}\n"
        f"compression  {model.optimizer.compression}\n"
        f"kernels      {custom_ops.describe()}\n"
        f"workdir      {options.workdir}\n"
    )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextlib.contextmanager
def _errors_in_one_line():
    """What the user can put right needs no stack of calls."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"train.py: {error}")


@contextlib.contextmanager
def _lost_worker_in_one_line():
    try:
        yield
    except Exception as error:
        if "Horovod" not in str(error):
            raise
        logging.debug("%s", error)
        sys.exit(
            f"train.py: Worker {tg.rank()} stops: another worker was lost. "
            f"{_GO_ON}"
        )


def _stop(signal_number, frame):
    sys.exit(f"train.py: Worker {tg.rank()} was told to stop. {_GO_ON}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
