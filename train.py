"""Trains a model, on one worker or many, with gradients of three levels.

    python train.py --flagfile=models/recipes/lenet_mnist_terngrad.flags
    horovodrun -np 2 python train.py --flagfile=...

With --group_lasso, --structure_lasso, --depth_lasso or --iss_strength the model
learns which of its structures it can do without.

Writes --workdir: flags.txt, metrics.jsonl, logs/ (TensorBoard), checkpoints/,
model.keras, and with --diagnostics_every diagnostics/. The same command goes
on where it was stopped. `eval.py --workdir` tests the model.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys

# TensorFlow's notes on its start, once per worker; warnings stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import keras
from absl import app, flags, logging

import custom_ops
import tf_terngrad as tg
from models import run
from models.run import tasks
from models.run.train_flags import define_flags
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


def read_flags(workdir: str | pathlib.Path) -> flags.FlagValues:
    """Returns the flags that a run was started with.

    Raises:
      ValueError: flags.txt holds a flag that train.py does not have.
      OSError: there is no flags.txt.
    """
    return run.flags_file.read(
        pathlib.Path(workdir) / "flags.txt", define_flags
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

    # --- This worker
    # One that waits for a lost one says so, and then gives up.
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", "30")
    os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", "120")
    with _errors_in_one_line():
        tg.init()
    # Before the data, whose images TensorFlow decodes.
    run.host.share(tg.local_rank(), tg.local_size(), options.intra_threads)

    # --- Checks, before any work
    with _errors_in_one_line():
        task = tasks.open_task(options)
        _compression(options)
        sparsity = _sparsity(options, task.loss_scale)
        low_rank = _low_rank(options)
        smooth_out = run.smooth_out(options)
        run.workdir.check_writable(workdir)
        if checkpoint.latest(checkpoints) or (workdir / "model.keras").exists():
            _check_same_run(options)
        rank, size = tg.rank(), tg.size()
        num_workers = options.virtual_workers * size
        batch_size = options.batch_size * num_workers
        steps_per_epoch = task.data.steps_per_epoch(
            options.batch_size, num_workers
        )
        # Evaluation averages over workers; each needs something to evaluate.
        if task.data.test_examples(size - 1, size) == 0:
            raise ValueError(
                f"{task.data.num_test} test {task.unit} are too few for {size} "
                "workers"
            )
    epochs = options.epochs or -(-options.steps // steps_per_epoch)
    steps = options.steps or epochs * steps_per_epoch

    # --- Model, optimizer, and where the run stands
    with _errors_in_one_line():
        model = task.build_model()
        if options.init_from:
            run.load_weights(model, options.init_from)
        sparsity.regularize(model)
        low_rank.regularize(model)
        rate = run.warmup.scaled(options, num_workers)
        optimizer = _optimizer(options, rate, steps, steps_per_epoch)
        optimizer = sparsity.wrap(low_rank.wrap(optimizer, model), model)
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
        **task.objective(),
        jit_compile=False,
        auto_scale_loss=False,
    )
    for step in (virtual, smooth_out):
        if step:
            step.attach(model)
    with _errors_in_one_line():
        model.optimizer.build(model.trainable_variables)
        run.workdir.check_space(workdir, model, options.keep_checkpoints)
        first_epoch = checkpoint.restore(checkpoints, model)
    first_step = min(first_epoch * steps_per_epoch, steps)
    if rank == 0:
        run.flags_file.write(workdir / "flags.txt", options, _flag_names())
        _introduce(
            options, task, model, epochs, steps_per_epoch, sparsity, low_rank
        )
    if first_epoch >= epochs:
        if rank == 0:
            if model.optimizer.use_ema:
                model.optimizer.finalize_variable_values(
                    model.trainable_variables
                )
            run.workdir.save_model(task.network(model), workdir / "model.keras")
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
        run.AveragedWeights(),
        *task.callbacks(options.eval_batch_size, rank, size),
        tg.callbacks.MetricAverage(task.data.test_examples(rank, size)),
        *task.derived_metrics(),
        tg.callbacks.ExchangeMetrics(),
        tg.callbacks.ReplicaCheck(),
        run.StopAtStep(steps, first_step),
        run.Throughput(
            batch_size * task.units_per_example, first_step, task.unit
        ),
        *low_rank.callbacks(),
        *sparsity.callbacks(workdir / "logs" if rank == 0 else None),
    ]
    if rank == 0:
        callbacks += [
            run.MetricsLog(workdir / "metrics.jsonl", first_epoch),
            keras.callbacks.TensorBoard(workdir / "logs", write_graph=False),
            run.Progress(
                epochs,
                steps_per_epoch,
                batch_size * task.units_per_example,
                write=_write,
                is_terminal=sys.stdout.isatty(),
                first_epoch=first_epoch,
                steps=steps,
                unit=task.unit,
                columns=task.columns,
            ),
        ]
    if rank == 0 and options.diagnostics_every:
        callbacks.append(
            tg.callbacks.GradientDiagnostics(
                workdir / "diagnostics",
                task.data.train(options.batch_size, rank, size, options.seed),
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
            task.data.train(
                options.batch_size,
                rank * options.virtual_workers,
                num_workers,
                options.seed,
                first_epoch,
                num_ranks=options.virtual_workers,
            ),
            validation_data=task.validation(
                options.eval_batch_size, rank, size
            ),
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps_per_epoch,
            shuffle=False,  # the data set has its own order
            callbacks=callbacks,
            verbose=0,
        )

    # --- Result
    if rank == 0:
        run.workdir.save_model(task.network(model), workdir / "model.keras")
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


def _sparsity(options, loss_scale):
    return run.Sparsity(
        options.group_lasso,
        options.structure_lasso,
        options.structure_update,
        options.depth_lasso,
        options.threshold,
        options.freeze_zeros,
        options.iss_strength,
        options.iss_exclude,
        loss_scale,
    )


def _low_rank(options):
    return run.LowRank(
        options.force,
        options.force_ratio,
        options.force_norm,
        options.force_layers,
        options.rank_clipping,
    )


def _optimizer(options, learning_rate, steps, steps_per_epoch):
    # Schedules count updates, of which there is one in `accumulate` steps.
    learning_rate = run.optimizers.schedule(
        options.lr_schedule,
        learning_rate,
        steps=max(1, steps // options.accumulate),
        decay_rate=options.lr_decay_rate,
        decay_steps=max(
            1,
            round(
                options.lr_decay_epochs * steps_per_epoch / options.accumulate
            ),
        ),
        hold_steps=round(
            options.lr_hold_epochs * steps_per_epoch / options.accumulate
        ),
        milestones=[
            int(step) // options.accumulate for step in options.lr_milestones
        ],
    )
    if options.lr_warmup_steps:
        learning_rate = run.warmup.Warmup(
            learning_rate, options.lr_warmup_steps
        )
    return run.optimizers.build(
        options.optimizer,
        learning_rate,
        options.momentum,
        options.weight_decay,
        options.global_clipnorm,
        options.ema,
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
    options, task, model, epochs, steps_per_epoch, sparsity, low_rank
) -> None:
    size, virtual = tg.size(), options.virtual_workers
    each = options.batch_size * task.units_per_example
    _write(
        f"model        {options.model}, {model.count_params():,} parameters\n"
        f"data         {task}\n"
        f"workers      {size * virtual}"
        + (f" ({virtual} in each of {size} processes)" if virtual > 1 else "")
        + f", {each} {task.unit} each a step, {each * size * virtual} in all\n"
        f"training     {epochs} epochs of {steps_per_epoch} steps, "
        f"{options.optimizer}, learning rate {options.learning_rate:g} "
        f"{options.lr_schedule}\n"
        + (f"begins from  {options.init_from}\n" if options.init_from else "")
        + (f"sparsity     {sparsity}\n" if sparsity.active else "")
        + (f"low rank     {low_rank}\n" if low_rank.active else "")
        + (
            f"smooth out   {options.smooth_out:g}, {options.smooth_out_noise}, "
            f"adaptive {options.smooth_out_adaptive}\n"
            if options.smooth_out
            else ""
        )
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
    flags.adopt_module_key_flags(run.train_flags)  # for --help
    app.run(main)
