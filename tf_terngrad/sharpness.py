"""How sharp a minimum is, and the loss on the line between two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_terngrad import checks


def sharpness(
    model,
    loss_fn: Callable[[], tf.Tensor],
    epsilon: float = 1e-3,
    steps: int = 20,
) -> float:
    """How much the loss can rise in a small box around the weights.

        100 * (max L(w + d) - L(w)) / (1 + L(w)),   |d_i| <= epsilon (|w_i| + 1)

    The maximum is looked for by projected gradient ascent, which finds a lower
    bound of it. The weights are put back to the bit.

    Args:
        model: Built Keras model.
        loss_fn: Loss at the model's weights, a scalar, always of the same
            examples.
        epsilon: Size of the box, > 0. Keskar et al.: 1e-3 and 5e-4.
        steps: Of the ascent, >= 1, each a quarter of the box against the signs
            of the gradient.

    Raises:
        ValueError: An argument is none of these; the loss is not finite.

    Departure: the paper looks for the maximum with L-BFGS-B.

    Reference: Keskar et al., "On Large-Batch Training for Deep Learning:
    Generalization Gap and Sharp Minima", ICLR 2017, equation 3.
    """
    epsilon = checks.positive_float("epsilon", epsilon)
    checks.integer("steps", steps, 1)
    variables = model.trainable_variables
    saved = [tf.identity(v.value) for v in variables]
    boxes = [epsilon * (tf.abs(value) + 1) for value in saved]

    @tf.function(autograph=False)
    def ascend():
        with tf.GradientTape() as tape:
            loss = loss_fn()
        gradients = tape.gradient(loss, variables)
        for variable, gradient, value, box in zip(
            variables, gradients, saved, boxes, strict=True
        ):
            if gradient is None:
                continue
            moved = variable + 0.25 * box * tf.sign(
                tf.convert_to_tensor(gradient)
            )
            variable.assign(tf.clip_by_value(moved, value - box, value + box))
        return loss

    losses = []
    try:
        for _ in range(steps):
            losses.append(float(ascend()))
        losses.append(float(loss_fn()))
    finally:
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)
    if not all(map(math.isfinite, losses)):
        raise ValueError(
            f"Expected a finite loss. Received: {losses[0]} at the weights, "
            f"{losses[-1]} at the end of the ascent"
        )
    return 100 * (max(losses) - losses[0]) / (1 + losses[0])


def loss_line(
    first, second, loss_fn: Callable, alphas: Sequence[float]
) -> list[float]:
    """The loss on the line between two models.

        L((1 - alpha) * first + alpha * second)

    Moving statistics lie on the line too. Neither model is changed.

    Args:
        first: Built Keras model, at alpha 0.
        second: Another of the same variables, at alpha 1.
        loss_fn: Function of a model to its loss.
        alphas: Where, below 0 and above 1 too.

    Returns:
        Losses.

    Raises:
        ValueError: The models have other variables.

    Reference: Goodfellow et al., "Qualitatively characterizing neural network
    optimization problems", ICLR 2015.
    """
    shapes = [[tuple(v.shape) for v in m.weights] for m in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Invalid value for argument second. Expected weights of the shapes "
            f"{shapes[0]}. Received: {shapes[1]}"
        )
    begin, end = first.get_weights(), second.get_weights()
    model = keras.models.clone_model(first)
    losses = []
    for alpha in alphas:
        model.set_weights(
            [
                a
                if not np.issubdtype(a.dtype, np.floating)
                else (1 - alpha) * a + alpha * b
                for a, b in zip(begin, end, strict=True)
            ]
        )
        losses.append(float(loss_fn(model)))
    return losses


def plot_loss_line(path, alphas: Sequence[float], lines: dict) -> None:
    """Draws losses over alpha.

    Args:
        path: Of the picture.
        alphas: What `loss_line` was given.
        lines: Label -> what it returned, such as of training and test images.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, losses in lines.items():
        axes.plot(alphas, losses, label=label)
    for alpha in (0, 1):
        axes.axvline(alpha, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="α: first model at 0, second at 1", ylabel="loss")
    axes.legend()
    figure.savefig(path, dpi=150)
