"""Keras' training step over parts of a batch."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf


def attach(model, owner, what: str) -> None:
    """Lets `model.fit` train with a step of ours.

    Args:
        model: Keras model.
        owner: Has `train_step(model, data) -> logs`. One of the same class
            takes the place of another.
        what: Says in the error what a step of the model's own must call.

    Raises:
        ValueError: The model has a `train_step` of its own.
    """
    attached = getattr(vars(model).get("train_step"), "owner", owner)
    if type(model).train_step is not keras.Model.train_step or type(
        attached
    ) is not type(owner):
        other = model if attached is owner else attached
        raise ValueError(
            "Invalid value for argument model. Expected a model with Keras' "
            "own train_step, which attach replaces. Received: "
            f"{type(other).__name__}, which has another. {what}"
        )

    def train_step(data):
        return owner.train_step(model, data)

    train_step.owner = owner
    model.train_step = train_step
    model.train_function = None  # as it was traced before


def split(batch, num_parts: int) -> list:
    """Nests like `batch`, of consecutive examples.

    Args:
        batch: Tensor or nest of tensors `[batch, ...]`, None among them; batch
            must be a multiple of `num_parts`.
        num_parts: Parts.
    """
    columns = [
        [None] * num_parts if tensor is None else tf.split(tensor, num_parts)
        for tensor in tf.nest.flatten(batch)
    ]
    return [
        tf.nest.pack_sequence_as(batch, part)
        for part in zip(*columns, strict=True)
    ]


def run(model, data, num_parts: int, update: Callable, around=None) -> dict:
    """Keras' own train_step, over parts.

    Args:
        model: Compiled Keras model.
        data: What `model.fit` gives a step.
        num_parts: Parts of the batch, one forward and backward pass each.
        update: Called with the gradients, a list for each part.
        around: Function of the part's number: a context in which both passes
            of the part run. None: nothing.

    Returns:
        Logs.
    """

    def passes(part):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(part)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(
                x, y, y_pred, sample_weight, training=True
            )
            scaled = model.optimizer.scale_loss(loss)
        return y_pred, loss, tape.gradient(scaled, model.trainable_variables)

    # Traced once for all parts: 64 copies of LeNet took 15 s to trace.
    # TensorFlow runs the calls side by side unless they change variables.
    @tf.function(autograph=False)
    def step_of_part(part, number):
        if around is None:
            return passes(part)
        with around(number):
            return passes(part)

    predictions, losses, gradients = zip(
        *[
            step_of_part(part, tf.constant(number, tf.int64))
            for number, part in enumerate(split(data, num_parts))
        ],
        strict=True,
    )
    update(list(gradients))

    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    y_pred = tf.nest.map_structure(
        lambda *parts: tf.concat(parts, axis=0), *predictions
    )
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(
                tf.add_n(losses) / len(losses),
                sample_weight=tf.shape(tf.nest.flatten(x)[0])[0],
            )
    return model.compute_metrics(x, y, y_pred, sample_weight)
