"""Tests of models/run/smooth_out_flags.py."""

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import train
from models.run import smooth_out


def options(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train.py", "--workdir=w", "--epochs=1", *arguments])
    return values


def test_off_by_default():
    assert smooth_out(options()) is None


def test_all_flags():
    made = smooth_out(
        options(
            *("--smooth_out=0.1", "--smooth_out_noise=normal", "--seed=3"),
            *("--smooth_out_adaptive=filter", "--ghost_batches=4"),
            "--smooth_out_schedule=anneal",
        )
    )
    assert (made.a, made.kind, made.adaptive) == (0.1, "normal", "filter")
    assert (made.ghost_batches, made.seed) == (4, 3)
    np.testing.assert_allclose(
        made.schedule(tf.constant(99, tf.int64)), 100**-0.275, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ghost_batches=2"], "--ghost_batches needs --smooth_out."),
        (
            ["--smooth_out=0.1", "--virtual_workers=2"],
            "--smooth_out and --virtual_workers each have a training step of "
            "their own: pass one of the two, or start workers with horovodrun.",
        ),
        (
            ["--smooth_out=0.1", "--ghost_batches=3"],
            "Invalid value for flag --ghost_batches. Expected a divisor of "
            "--batch_size=32. Received: 3",
        ),
    ],
)
def test_what_does_not_go_together(arguments, message):
    with pytest.raises(ValueError) as error:
        smooth_out(options(*arguments))
    assert str(error.value) == message
