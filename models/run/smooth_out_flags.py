"""The flags of SmoothOut."""

from __future__ import annotations

import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad.smooth_out import ADAPTIVES, NOISES

SCHEDULES = ("constant", "anneal")


def define_flags(add) -> None:
    """Defines the flags of SmoothOut; `add` as in `train_flags`."""
    add.number(
        "smooth_out",
        0.0,
        "Noise on the weights while gradients are computed: its amount a, >= "
        "0. 0: none.",
        0.0,
    )
    add.choice("smooth_out_noise", "uniform", NOISES, "What --smooth_out adds.")
    add.choice(
        "smooth_out_adaptive",
        "none",
        ADAPTIVES,
        "What a is a share of: nothing, each weight, the length of a filter.",
    )
    add.choice(
        "smooth_out_schedule",
        "constant",
        SCHEDULES,
        "anneal: a * (1 + t)^-0.275 at step t, as the authors.",
    )
    add.count(
        "ghost_batches",
        1,
        "Parts of a batch with noise of their own, >= 1; with --smooth_out.",
        1,
    )


def smooth_out(options) -> tg.SmoothOut | None:
    """What the flags ask for.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: --smooth_out beside --virtual_workers, or parts that do not
        divide the batch.
    """
    if not options.smooth_out:
        if options.ghost_batches > 1:
            raise ValueError("--ghost_batches needs --smooth_out.")
        return None
    if options.virtual_workers > 1:
        raise ValueError(
            "--smooth_out and --virtual_workers each have a training step of "
            "their own: pass one of the two, or start workers with horovodrun."
        )
    if options.batch_size % options.ghost_batches:
        raise ValueError(
            "Invalid value for flag --ghost_batches. Expected a divisor of "
            f"--batch_size={options.batch_size}. Received: "
            f"{options.ghost_batches}"
        )
    return tg.SmoothOut(
        options.smooth_out,
        options.smooth_out_noise,
        options.smooth_out_adaptive,
        _anneal if options.smooth_out_schedule == "anneal" else None,
        options.ghost_batches,
        seed=options.seed,
    )


def _anneal(step):
    """The authors' schedule, sqrt(1 / (1 + t)^0.55)."""
    return (1.0 + tf.cast(step, tf.float32)) ** -0.275
