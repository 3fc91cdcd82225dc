"""Trains a model, on one worker or many, with gradients of three levels.

    python train.py --flagfile=models/recipes/lenet_mnist_terngrad.flags
    horovodrun -np 2 python train.py --flagfile=...

With --group_lasso, --structure_lasso or --depth_lasso the model learns which of
its structures it can do without.

Writes --workdir: flags.txt, metrics.jsonl, logs/ (TensorBoard), checkpoints/,
model.keras, and with --diagnostics_every diagnostics/. The same command goes
on where it was stopped. `eval.py --workdir` tests the model.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pathlib
import signal
import sys

# TensorFlow's notes on its start, once per worker; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import keras
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
    "diagnostics_every",
    "eval_batch_size",
    "intra_threads",
    "keep_checkpoints",
    "measure_link",
    "workdir",
}

_GO_ON = "The same command goes on from the last checkpoint."


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines train.py's flags in `to`."""
    text, number, count, choice, words, switch = (
        functools.partial(define, flag_values=to)
        for define in (
            flags.DEFINE_string,
            flags.DEFINE_float,
            flags.DEFINE_integer,
            flags.DEFINE_enum,
            flags.DEFINE_list,
            flags.DEFINE_bool,
        )
    )
    check = functools.partial(flags.register_validator, flag_values=to)

    # --- Run
    text("workdir", None, "Folder of the run, for all workers; required.")
    count("epochs", None, "Passes over the data, >= 1. Or: --steps.", 1)
    count("steps", None, "Steps of each worker, >= 1. Or: --epochs.", 1)
    count("seed", 0, "Of weights, order, dropout, ternarizing; >= 0.", 0)
    count("keep_checkpoints", 2, "How many checkpoints stay, >= 1.", 1)
    count(
        "intra_threads",
        0,
        "Threads of an op, >= 1. 0: the host's cores / its workers.",
        0,
    )
    count(
        "diagnostics_every",
        0,
        "Steps between records of gradients before and after ternarizing; "
        "see python -m tf_terngrad.diagnostics. 0: none.",
        0,
    )

    # --- Model and data
    choice("model", "lenet", models.names(), "What to train.")
    number(
        "dropout",
        None,
        "Rate in [0, 1), for models with dropout. Default: the model's own.",
    )
    choice(
        "shortcut",
        None,
        models.resnet_cifar.SHORTCUTS,
        "Of resnet20, 32 and 56, to the next stage: A pads channels with "
        "zeros, B is a 1 x 1 convolution. Default: A.",
    )
    text(
        "init_from",
        None,
        "Begins with the weights of another run: its workdir, or a .keras "
        "file. Default: random weights.",
    )
    text("dataset", "mnist", "TFDS's name of a set of images, or: folder.")
    text(
        "data_dir",
        None,
        "TFDS's data folder, or one of train/<class>/*.jpg and test/<class>/"
        "*.jpg. Default: data/, here.",
    )
    count(
        "image_size",
        0,
        "Height and width of the model's images, pixels. 0: as they are, or "
        "the --augment's own.",
        0,
    )
    choice(
        "augment",
        "none",
        models.data.AUGMENTATIONS,
        "Crops, mirrors and normalizes images. cifar: 24 x 24, contrast; "
        "cifar_pad: 32 x 32, shifted by up to 4; imagenet: 224 x 224, windows "
        "of random size.",
    )
    count("batch_size", 32, "Images per worker and step, >= 1.", 1)
    count(
        "virtual_workers",
        1,
        "Workers that each process stands for, >= 1: one computes after the "
        "other, and nothing is sent between them.",
        1,
    )
    count("eval_batch_size", 500, "The same when testing, >= 1.", 1)

    # --- Optimizer
    choice("optimizer", "momentum", run.optimizers.NAMES, "Updates weights.")
    number("learning_rate", 0.01, "At the start, > 0.")
    choice(
        "lr_schedule",
        "constant",
        run.optimizers.SCHEDULES,
        "polynomial: lr * sqrt(1 - t/T), as the paper; cosine: to 0; "
        "exponential: times --lr_decay_rate every --lr_decay_epochs; "
        "multistep: times --lr_decay_rate at each of --lr_milestones.",
    )
    number("lr_decay_rate", 0.1, "Of exponential and multistep, in (0, 1].")
    number("lr_decay_epochs", 20.0, "Of exponential, epochs, > 0.")
    words("lr_milestones", [], "Of multistep, rising steps: 32000,48000.")
    number("momentum", 0.9, "Of momentum and nesterov, in [0, 1).")
    number(
        "weight_decay",
        0.0,
        "Decoupled: lr * this * weight is taken from each kernel at each "
        "update; >= 0.",
        0.0,
    )
    count(
        "accumulate",
        1,
        "Steps whose gradients are averaged before one exchange, >= 1.",
        1,
    )

    # --- Structured sparsity
    words("group_lasso", [], run.group_lasso_flag.HELP)
    number(
        "structure_lasso",
        0.0,
        "Strength of the group Lasso on all filters and neurons, >= 0.",
        0.0,
    )
    choice(
        "structure_update",
        "subgradient",
        run.sparsity.UPDATES,
        "How --structure_lasso and --depth_lasso are applied.",
    )
    number(
        "depth_lasso",
        0.0,
        "Strength of the group Lasso on whole residual branches, >= 0.",
        0.0,
    )
    number(
        "threshold",
        1e-4,
        "Of what the flags above penalize, weights that are smaller become 0 "
        "after each update; >= 0.",
        0.0,
    )
    choice(
        "freeze_zeros",
        "none",
        run.sparsity.FREEZE,
        "Weights that are 0 at the start stay 0: each one; those of filters "
        "and columns that are 0; those of residual branches that are 0.",
    )

    # --- Exchange of gradients
    choice(
        "compression",
        "terngrad",
        ["none", "fp16", "terngrad"],
        "How gradients travel. The flags below are terngrad's.",
    )
    number(
        "clip_factor",
        2.5,
        "Clips at that many standard deviations, > 0. 0: no clipping.",
        0.0,
    )
    choice(
        "clip_mode",
        "own",
        ["own", "shared"],
        "Clips at the worker's own level, as the paper, or the shared scaler.",
    )
    count(
        "bucket_size",
        0,
        "Elements that share a scaler, >= 1. 0: one scaler per tensor.",
        0,
    )
    count("min_size", 0, "Smaller tensors travel in float; elements, >= 0.", 0)
    words(
        "exempt",
        [],
        "Patterns of variables that travel in float: */bias,logits/*",
    )
    choice(
        "exchange",
        "auto",
        ["auto", "allgather", "allreduce", "alltoall"],
        "How levels travel; auto: what is fastest on a link of 1 Gbit/s.",
    )
    switch("measure_link", False, "Measures the link for --exchange=auto.")
    count("groups", 1, "Exchanges a step, overlapping the backward pass.", 1)
    count("float_every", 0, "Every so many exchanges one in float. 0: none.", 0)
    count(
        "float_every_epochs",
        0,
        "Every so many epochs one with float gradients, as the paper's code. "
        "0: none. Instead of --float_every.",
        0,
    )
    count("warmup_steps", 0, "The first so many exchanges are in float.", 0)
    switch(
        "error_feedback",
        False,
        "Adds what clipping removed to the next gradient.",
    )

    flags.mark_flag_as_required("workdir", flag_values=to)
    flags.register_multi_flags_validator(
        ["epochs", "steps"],
        lambda given: (given["epochs"] is None) != (given["steps"] is None),
        "Pass one of --epochs and --steps.",
        flag_values=to,
    )
    flags.register_multi_flags_validator(
        ["float_every", "float_every_epochs"],
        lambda given: not all(given.values()),
        "Pass --float_every or --float_every_epochs.",
        flag_values=to,
    )
    check("learning_rate", lambda x: 0 < x < math.inf, "must be > 0")
    check("lr_decay_rate", lambda x: 0 < x <= 1, "must be in (0, 1]")
    check("lr_decay_epochs", lambda x: 0 < x < math.inf, "must be > 0")
    check(
        "lr_milestones",
        lambda x: all(each.isdecimal() for each in x),
        "must be steps such as 32000,48000",
    )
    check("momentum", lambda x: 0 <= x < 1, "must be in [0, 1)")


def read_flags(workdir: str | pathlib.Path) -> flags.FlagValues:
    """Returns the flags that a run was started with.

    Raises:
      ValueError: flags.txt holds a flag that train.py does not have.
      OSError: there is no flags.txt.
    """
    return run.flags_file.read(
        pathlib.Path(workdir) / "flags.txt", define_flags
    )


def open_dataset(options: flags.FlagValues) -> models.data.ImageClassification:
    """Opens the data set that the flags name."""
    size = options.image_size
    return models.data.load(
        options.dataset,
        options.data_dir,
        (size, size) if size else None,
        augment=options.augment,
    )


def build_model(
    options: flags.FlagValues, dataset: models.data.ImageClassification
) -> keras.Model:
    """Builds the model that the flags name, for the images of a data set."""
    own = {
        name: options[name].value
        for name in ("dropout", "shortcut")
        if options[name].value is not None
    }
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
        _compression(options)
        sparsity = _sparsity(options)
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
        num_workers = options.virtual_workers * size
        batch_size = options.batch_size * num_workers
        steps_per_epoch = dataset.steps_per_epoch(
            options.batch_size, num_workers
        )
        # Evaluation averages over workers; each needs something to evaluate.
        if dataset.test_examples(size - 1, size) == 0:
            raise ValueError(
                f"{dataset.num_test} test images are too few for {size} workers"
            )
    run.host.share(tg.local_rank(), tg.local_size(), options.intra_threads)
    epochs = options.epochs or -(-options.steps // steps_per_epoch)
    steps = options.steps or epochs * steps_per_epoch

    # --- Model, optimizer, and where the run stands
    with _errors_in_one_line():
        model = build_model(options, dataset)
        if options.init_from:
            run.load_weights(model, options.init_from)
        sparsity.regularize(model)
        optimizer = sparsity.wrap(
            _optimizer(options, steps, steps_per_epoch), model
        )
    seed_streams(model, options.seed, rank)
    virtual = (
        tg.LocalWorkers(options.virtual_workers)
        if options.virtual_workers > 1
        else None
    )
    model.compile(
        tg.DistributedOptimizer(
            optimizer,
            _compression(
                options,
                steps_per_epoch,
                tg.measure_link() if options.measure_link else None,
            ),
            groups=options.groups,
            gradient_accumulation_steps=(
                options.accumulate if options.accumulate > 1 else None
            ),
            workers=virtual,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        auto_scale_loss=False,
    )
    if virtual:
        virtual.attach(model)
    with _errors_in_one_line():
        model.optimizer.build(model.trainable_variables)
        run.workdir.check_space(workdir, model, options.keep_checkpoints)
        first_epoch = checkpoint.restore(checkpoints, model)
    first_step = min(first_epoch * steps_per_epoch, steps)
    if rank == 0:
        run.flags_file.write(workdir / "flags.txt", options, _flag_names())
        _introduce(options, dataset, model, epochs, steps_per_epoch, sparsity)
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
        *sparsity.callbacks(workdir / "logs" if rank == 0 else None),
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
    if rank == 0 and options.diagnostics_every:
        callbacks.append(
            tg.callbacks.GradientDiagnostics(
                workdir / "diagnostics",
                dataset.train(options.batch_size, rank, size, options.seed),
                every=options.diagnostics_every,
                log_dir=workdir / "logs" / "diagnostics",
                first_step=first_step,
            )
        )
    callbacks.append(
        checkpoint.Checkpoint(checkpoints, keep=options.keep_checkpoints)
    )
    with _lost_worker_in_one_line():
        model.fit(
            dataset.train(
                options.batch_size,
                rank * options.virtual_workers,
                num_workers,
                options.seed,
                first_epoch,
                num_ranks=options.virtual_workers,
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


def _compression(options, steps_per_epoch=1, link=None):
    if options.compression == "none":
        return tg.NoCompression()
    if options.compression == "fp16":
        return tg.FP16()
    float_every = options.float_every or None
    if options.float_every_epochs:
        exchanges = max(1, steps_per_epoch // options.accumulate)
        float_every = (options.float_every_epochs * exchanges, exchanges)
    return tg.TernGrad(
        clip_factor=options.clip_factor or None,
        clip_mode=options.clip_mode,
        bucket_size=options.bucket_size or None,
        min_size=options.min_size,
        exempt=tuple(options.exempt),
        exchange=options.exchange,
        float_every=float_every,
        warmup_steps=options.warmup_steps,
        error_feedback=options.error_feedback,
        seed=options.seed,
        link=link,
    )


def _sparsity(options):
    return run.Sparsity(
        options.group_lasso,
        options.structure_lasso,
        options.structure_update,
        options.depth_lasso,
        options.threshold,
        options.freeze_zeros,
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
        milestones=[
            int(step) // options.accumulate for step in options.lr_milestones
        ],
    )
    return run.optimizers.build(
        options.optimizer,
        learning_rate,
        options.momentum,
        options.weight_decay,
    )


def _flag_names() -> set[str]:
    own = flags.FlagValues()
    define_flags(own)
    return set(own)


def _check_same_run(options) -> None:
    names = _flag_names() - _FREE_FLAGS
    if options.lr_schedule == "constant":
        names -= {"epochs", "steps"}  # no schedule stretches with them
    before = read_flags(options.workdir)
    run.flags_file.check_same(options.workdir, before, options, names)


def _introduce(
    options, dataset, model, epochs, steps_per_epoch, sparsity
) -> None:
    size, virtual = tg.size(), options.virtual_workers
    _write(
        f"model        {options.model}, {model.count_params():,} parameters\n"
        f"data         {dataset.name}, {dataset.num_train:,} training and "
        f"{dataset.num_test:,} test images\n"
        f"workers      {size * virtual}"
        + (f" ({virtual} in each of {size} processes)" if virtual > 1 else "")
        + f", {options.batch_size} images each a step, "
        f"{options.batch_size * size * virtual} in all\n"
        f"training     {epochs} epochs of {steps_per_epoch} steps, "
        f"{options.optimizer}, learning rate {options.learning_rate:g} "
        f"{options.lr_schedule}\n"
        + (f"begins from  {options.init_from}\n" if options.init_from else "")
        + (f"sparsity     {sparsity}\n" if sparsity.active else "")
        + f"compression  {model.optimizer.compression}\n"
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
