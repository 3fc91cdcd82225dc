"""Gradients of this worker in, their averages over all workers out."""

import keras
import tensorflow as tf

from tf_terngrad import collectives


# Nothing here for AutoGraph: without it, tracing takes a tenth of the time.
@tf.autograph.experimental.do_not_convert
def exchange(
    gradients,
    variables,
    compression,
    step=None,
    process_set=None,
    workers=None,
    *,
    name="exchange",
    statistics=None,
    feedback=None,
):
    """Averages gradients over workers, compressed on the way.

    All workers call it with the same variables; the result is the same, to the
    bit, on all of them. Outside `tf.function` or inside; never in a branch
    that only some workers take.

    Args:
        gradients: One entry a variable: a dense tensor, an IndexedSlices, or
            None (on all workers alike). With `workers`: one such list for each
            of them.
        variables: Keras or TensorFlow variables; they give names and, by their
            position, the random streams.
        compression: `TernGrad`, `FP16` or `NoCompression`.
        step: Number of this exchange: with the seed it decides the random
            bits, so no two exchanges may share it. A variable is read, then
            incremented once. None: a counter of the compression's own.
        process_set: Horovod process set to exchange within; None: all. A
            worker outside it gets its own gradients back.
        workers: `LocalWorkers`: this process stands for that many.
        name: Prefix of the collectives' names: different for exchanges that
            may run at the same time.
        statistics: `ExchangeStatistics` to update.
        feedback: `ErrorFeedback` of these variables, for
            `TernGrad(error_feedback=True)`.

    Returns:
        List of averaged gradients, None where the gradient is None.

    Raises:
        ValueError: Numbers of gradients and variables differ, a gradient has
            another shape than its variable, is None on some local workers
            only, or a pattern of the compression matches no variable.
    """
    group = collectives.Workers(process_set)
    if step is None:
        step = compression.step
    now = tf.cast(tf.convert_to_tensor(step), tf.int64)

    local = list(gradients) if workers is not None else [gradients]
    if workers is not None and len(local) != workers.num_workers:
        raise ValueError(
            "Invalid value for argument gradients. Expected one list for each "
            f"of {workers.num_workers} local workers. Received: "
            f"{len(local)} lists"
        )
    for tensors in local:
        if len(tensors) != len(variables):
            raise ValueError(
                "Invalid value for argument gradients. Expected one for each "
                f"of {len(variables)} variables. Received: {len(tensors)} "
                "gradients"
            )
        for gradient, variable in zip(tensors, variables, strict=True):
            _check_shape(gradient, variable)
    paths = [path(v) for v in variables]
    compression.check(paths)
    positions = [i for i, g in enumerate(local[0]) if g is not None]
    for tensors in local:
        if positions != [i for i, g in enumerate(tensors) if g is not None]:
            raise ValueError(
                "Invalid value for argument gradients. Expected None for the "
                "same variables on all local workers."
            )
    if group.rank is None or not positions:
        return list(local[0])

    averages = [None] * len(variables)
    # Exchanges that count with one variable run one after the other, so that
    # collectives of one name never meet.
    with tf.control_dependencies([now]):
        averaged = compression.average(
            [[tensors[i] for i in positions] for tensors in local],
            paths=[paths[i] for i in positions],
            ids=positions,
            step=now,
            workers=group,
            name=name,
            statistics=statistics,
            feedback=feedback,
        )
    for i, gradient in zip(positions, averaged, strict=True):
        averages[i] = gradient
    if isinstance(step, tf.Variable | keras.Variable):
        # zero() keeps the collectives alive where nothing else uses the
        # result: TensorFlow would prune them, on this worker alone.
        with tf.control_dependencies(components(averaged)):
            step.assign_add(tf.cast(1 + group.zero(), step.dtype))
    return averages


def _check_shape(gradient, variable):
    if gradient is None:
        return
    expected = tf.TensorShape(variable.shape)
    if isinstance(gradient, tf.IndexedSlices):  # any number of rows
        expected, received = expected[1:], gradient.values.shape[1:]
    else:
        received = gradient.shape
    if not received.is_compatible_with(expected):
        raise ValueError(
            f"Invalid shape of the gradient of {path(variable)}. Expected "
            f"{tuple(expected)}. Received: {tuple(received)}"
        )


def components(gradients) -> list:
    """The tensors of a list of gradients."""
    return [
        g.values if isinstance(g, tf.IndexedSlices) else g
        for g in gradients
        if g is not None
    ]


def path(variable) -> str:
    """The variable's path, such as `dense/kernel`."""
    return getattr(variable, "path", None) or variable.name.split(":")[0]
