"""train.py's flags."""

from __future__ import annotations

import functools
import math

from absl import flags

from models import data, ptb_lstm, registry, resnet_cifar
from models.run import (
    group_lasso_flag,
    low_rank,
    optimizers,
    smooth_out_flags,
    sparsity,
    warmup,
)
from models.run.tasks import adaptation, next_word


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines train.py's flags in `to`."""
    add = _Add(to)
    _run(add)
    _model(add)
    _data(add)
    _optimizer(add)
    _sparsity(add)
    _exchange(add)
    for part in (warmup, low_rank, smooth_out_flags, adaptation):
        part.define_flags(add)
    _check(to)


class _Add:
    """absl's functions that define flags, for one set of flags."""

    def __init__(self, to):
        for name, function in (
            ("text", flags.DEFINE_string),
            ("number", flags.DEFINE_float),
            ("count", flags.DEFINE_integer),
            ("choice", flags.DEFINE_enum),
            ("words", flags.DEFINE_list),
            ("switch", flags.DEFINE_bool),
        ):
            setattr(self, name, functools.partial(function, flag_values=to))


def _run(add):
    add.text("workdir", None, "Folder of the run, for all workers; required.")
    add.count("epochs", None, "Passes over the data, >= 1. Or: --steps.", 1)
    add.count("steps", None, "Steps of each worker, >= 1. Or: --epochs.", 1)
    add.count("seed", 0, "Of weights, order, dropout, ternarizing; >= 0.", 0)
    add.count("keep_checkpoints", 2, "How many checkpoints stay, >= 1.", 1)
    add.count(
        "intra_threads",
        0,
        "Threads of an op, >= 1. 0: the host's cores / its workers.",
        0,
    )
    add.count(
        "diagnostics_every",
        0,
        "Steps between records of gradients before and after ternarizing; "
        "see python -m tf_terngrad.diagnostics. 0: none.",
        0,
    )


def _model(add):
    own = "Default: the model's own."
    add.choice("model", "lenet", registry.names(), "What to train.")
    add.text(
        "init_from",
        None,
        "Begins with the weights of another run: its workdir, or a .keras "
        "file. Default: random weights.",
    )
    add.number(
        "dropout",
        None,
        f"Rate in [0, 1), for models with dropout. {own}",
    )
    add.choice(
        "shortcut",
        None,
        resnet_cifar.SHORTCUTS,
        "Of resnet20, 32 and 56, to the next stage: A pads channels with "
        "zeros, B is a 1 x 1 convolution. Default: A.",
    )
    add.choice("size", None, list(ptb_lstm.SIZES), f"Of ptb_lstm. {own}")
    add.words("hidden", [], f"Units of ptb_lstm's layers: 373,315. {own}")
    add.count("embedding", None, f"Size of ptb_lstm's. {own}", 1)
    add.count("width", None, f"Of rhn's state and embedding. {own}", 1)
    add.count("depth", None, f"Micro-layers of rhn. {own}", 1)
    for name, what in (
        ("word", "words"),
        ("input", "its input"),
        ("recurrent", "its state"),
        ("output", "its output"),
    ):
        add.number(f"{name}_dropout", None, f"Rate of rhn for {what}. {own}")
    add.count("d", None, f"Of bidaf: units, filters, vectors. {own}", 1)
    for name in ("contextual", "modelling1", "modelling2", "output"):
        add.words(
            name, [], f"Units of bidaf's LSTM layers of that name: 84,90. {own}"
        )


def _data(add):
    add.text(
        "dataset",
        "mnist",
        "Images: TFDS's name of a set, or folder. Language models: words. "
        "bidaf: squad, or cloze (questions made from a text).",
    )
    add.text(
        "data_dir",
        None,
        "Images: TFDS's data folder, or one of train/<class>/*.jpg and "
        "test/<class>/*.jpg. words: a text, or a folder of ptb.train.txt and "
        "so on. squad: folder of train*.json and dev*.json, one such file, or "
        "TFDS's. cloze: a text. Default: data/, here.",
    )
    add.count("batch_size", 32, "Examples per worker and step, >= 1.", 1)
    add.count(
        "virtual_workers",
        1,
        "Workers that each process stands for, >= 1: one computes after the "
        "other, and nothing is sent between them.",
        1,
    )
    add.count(
        "eval_batch_size",
        None,
        "The same when testing, >= 1. Default: 500 images, 60 questions.",
        1,
    )

    # Images
    add.count(
        "image_size",
        0,
        "Height and width of the model's images, pixels. 0: as they are, or "
        "the --augment's own.",
        0,
    )
    add.choice(
        "augment",
        "none",
        data.AUGMENTATIONS,
        "Crops, mirrors and normalizes images. shift: moved by up to 1 pixel, "
        "not mirrored; cifar: 24 x 24, contrast; cifar_pad: 32 x 32, moved by "
        "up to 4; imagenet: 224 x 224, windows of random size.",
    )

    # Words
    add.count("vocab_size", 10000, "Words that a language model knows.", 3)
    add.count("num_steps", 35, "Words of a row of a batch of text.", 1)
    add.count("max_words", 0, "Reads so many words of a text. 0: all.", 0)
    add.choice(
        "loss_over_steps",
        "sum",
        next_word.LOSSES,
        "Of a language model's loss: the sum over a row's steps, as the "
        "papers; or their mean, for which --iss_strength is converted.",
    )

    # Questions
    add.text(
        "word_vectors",
        None,
        "GloVe file such as glove.6B.100d.txt, for bidaf. Default: all vectors "
        "are trained.",
    )
    add.count("min_count", 1, "Rarer words and characters are unknown.", 1)
    add.count("num_questions", 6000, "Of cloze, in all.", 1)
    add.count(
        "max_context", 400, "Training questions answered later are left out.", 1
    )


def _optimizer(add):
    add.choice("optimizer", "momentum", optimizers.NAMES, "Updates weights.")
    add.number("learning_rate", 0.01, "At the start, > 0.")
    add.choice(
        "lr_schedule",
        "constant",
        optimizers.SCHEDULES,
        "polynomial: lr * sqrt(1 - t/T), as the paper; cosine: to 0; "
        "exponential: times --lr_decay_rate every --lr_decay_epochs; "
        "multistep: times --lr_decay_rate at each of --lr_milestones.",
    )
    add.number("lr_decay_rate", 0.1, "Of exponential and multistep, in (0, 1].")
    add.number("lr_decay_epochs", 20.0, "Of exponential, epochs, > 0.")
    add.number(
        "lr_hold_epochs",
        0.0,
        "Of exponential: epochs before the first decay counts; >= 0.",
        0.0,
    )
    add.words("lr_milestones", [], "Of multistep, rising steps: 32000,48000.")
    add.number("momentum", 0.9, "Of momentum and nesterov, in [0, 1).")
    add.number(
        "weight_decay",
        0.0,
        "Decoupled: lr * this * weight is taken from each kernel at each "
        "update; >= 0.",
        0.0,
    )
    add.number(
        "global_clipnorm",
        0.0,
        "Gradients are made shorter where all of them together, the penalty of "
        "--iss_strength among them, are longer; >= 0. 0: never.",
        0.0,
    )
    add.number(
        "ema",
        0.0,
        "Evaluates and saves averages of weights: this times the average, plus "
        "the rest times the weight; in [0, 1). 0: none.",
        0.0,
    )
    add.count(
        "accumulate",
        1,
        "Steps whose gradients are averaged before one exchange, >= 1.",
        1,
    )


def _sparsity(add):
    add.words("group_lasso", [], group_lasso_flag.HELP)
    add.number(
        "structure_lasso",
        0.0,
        "Strength of the group Lasso on all filters and neurons, >= 0.",
        0.0,
    )
    add.choice(
        "structure_update",
        "subgradient",
        sparsity.UPDATES,
        "How --structure_lasso and --depth_lasso are applied.",
    )
    add.number(
        "depth_lasso",
        0.0,
        "Strength of the group Lasso on whole residual branches, >= 0.",
        0.0,
    )
    add.number(
        "iss_strength",
        0.0,
        "Strength of the group Lasso on the hidden units of recurrent layers "
        "(ISS), >= 0: of a loss that is summed over steps.",
        0.0,
    )
    add.words(
        "iss_exclude",
        [],
        "Patterns of layers that --iss_strength leaves alone: contextual*",
    )
    add.number(
        "threshold",
        1e-4,
        "Of what the flags above penalize, weights that are smaller become 0 "
        "after each update; >= 0.",
        0.0,
    )
    add.choice(
        "freeze_zeros",
        "none",
        sparsity.FREEZE,
        "Weights that are 0 at the start stay 0: each one; those of filters "
        "and columns that are 0; those of residual branches that are 0.",
    )


def _exchange(add):
    add.choice(
        "compression",
        "terngrad",
        ["none", "fp16", "terngrad"],
        "How gradients travel. The flags below are terngrad's.",
    )
    add.number(
        "clip_factor",
        2.5,
        "Clips at that many standard deviations, > 0. 0: no clipping.",
        0.0,
    )
    add.choice(
        "clip_mode",
        "own",
        ["own", "shared"],
        "Clips at the worker's own level, as the paper, or the shared scaler.",
    )
    add.count(
        "bucket_size",
        0,
        "Elements that share a scaler, >= 1. 0: one scaler per tensor.",
        0,
    )
    add.count(
        "min_size", 0, "Smaller tensors travel in float; elements, >= 0.", 0
    )
    add.words(
        "exempt",
        [],
        "Patterns of variables that travel in float: */bias,logits/*",
    )
    add.choice(
        "exchange",
        "auto",
        ["auto", "allgather", "allreduce", "alltoall"],
        "How levels travel; auto: what is fastest on a link of 1 Gbit/s.",
    )
    add.switch("measure_link", False, "Measures the link for --exchange=auto.")
    add.count(
        "groups", 1, "Exchanges a step, overlapping the backward pass.", 1
    )
    add.count(
        "float_every", 0, "Every so many exchanges one in float. 0: none.", 0
    )
    add.count(
        "float_every_epochs",
        0,
        "Every so many epochs one with float gradients, as the paper's code. "
        "0: none. Instead of --float_every.",
        0,
    )
    add.count("warmup_steps", 0, "The first so many exchanges are in float.", 0)
    add.switch(
        "error_feedback",
        False,
        "Adds what clipping removed to the next gradient.",
    )


def _check(to):
    check = functools.partial(flags.register_validator, flag_values=to)
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
    check("ema", lambda x: x < 1, "must be in [0, 1)")
    for name in ("hidden", "contextual", "modelling1", "modelling2", "output"):
        check(
            name,
            lambda x: all(each.isdecimal() for each in x),
            "must be numbers of units such as 373,315",
        )
