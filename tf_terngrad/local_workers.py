"""Virtual workers: the curves over N on one machine."""

import tensorflow as tf

from tf_terngrad import checks


class LocalWorkers:
    """n workers in one process.

    The gradients of each are computed one after the other and exchanged as if
    they had come over a network: same scalers, same random streams, same bits
    as n real workers would get. Nothing is sent. With R real processes there
    are n * R workers.

    Args:
        num_workers: n >= 1.

    Example:
        workers = tg.LocalWorkers(4)
        gradients = workers.gradients(loss_fn, model, (images, labels))
        averages = tg.exchange(
            gradients, model.trainable_variables, tg.TernGrad(),
            workers=workers)
    """

    def __init__(self, num_workers: int):
        checks.integer("num_workers", num_workers, 1)
        self.num_workers = num_workers

    def gradients(self, loss_fn, model, batch) -> list:
        """Each worker's gradients of its part of a batch.

        Args:
            loss_fn: `loss_fn(model, part) -> scalar`.
            model: Keras model.
            batch: Tensor or nest of tensors `[batch, ...]`; batch must be a
                multiple of the number of workers.

        Returns:
            n lists, one gradient a trainable variable each.
        """
        parts = [
            tf.split(tensor, self.num_workers)
            for tensor in tf.nest.flatten(batch)
        ]
        gradients = []
        for i in range(self.num_workers):
            part = tf.nest.pack_sequence_as(batch, [p[i] for p in parts])
            with tf.GradientTape() as tape:
                loss = loss_fn(model, part)
            gradients.append(tape.gradient(loss, model.trainable_variables))
        return gradients
