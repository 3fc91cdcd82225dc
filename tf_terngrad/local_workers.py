"""Virtual workers: the curves over N on one machine."""

import tensorflow as tf

from tf_terngrad import checks, train_step


class LocalWorkers:
    """n workers in one process.

    The gradients of each are computed on its own part of the batch and
    exchanged as if they had come over a network: same scalers, same random
    streams, same bits as n real workers would get. Nothing is sent. With R
    real processes there are n * R workers; worker i of process r has the rank
    r * n + i.

    Under `model.fit` a step is n forward and backward passes, one for each
    part of the batch, and one update. What follows from that: moving
    statistics (batch normalization) are updated n times a step, once by each
    part; a dropout layer's stream goes on from part to part, so that each
    worker has masks of its own, but not those that n processes would draw;
    metrics are those of the whole batch.

    Args:
        num_workers: n >= 1.

    Example:
        workers = tg.LocalWorkers(4)
        model.compile(
            tg.DistributedOptimizer(
                keras.optimizers.SGD(0.01), tg.TernGrad(), workers=workers),
            loss, jit_compile=False)
        workers.attach(model)
        model.fit(batches_of_all_workers)

        # Or, in a loop of your own:
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
        gradients = []
        for part in train_step.split(batch, self.num_workers):
            with tf.GradientTape() as tape:
                loss = loss_fn(model, part)
            gradients.append(tape.gradient(loss, model.trainable_variables))
        return gradients

    def attach(self, model) -> None:
        """Lets `model.fit` train with these workers.

        Call it after `model.compile`. Each batch then holds the parts of all
        n workers, one after the other; its size must be a multiple of n.

        Args:
            model: Keras model, compiled with a DistributedOptimizer that has
                these workers.

        Raises:
            ValueError: It was compiled with another optimizer, or has a
                `train_step` of its own.
        """
        train_step.attach(
            model, self, "Call workers.gradients and optimizer.apply in it."
        )
        self._check_optimizer(model)

    def __repr__(self) -> str:
        return f"LocalWorkers({self.num_workers})"

    def _check_optimizer(self, model):
        optimizer = getattr(model, "optimizer", None)
        if getattr(optimizer, "workers", None) is not self:
            raise ValueError(
                "Invalid value for argument model. Expected a model compiled "
                "with tg.DistributedOptimizer(..., workers=workers) of these "
                f"workers. Received: optimizer={optimizer!r}"
            )

    def train_step(self, model, data):
        """Keras' own train_step, for n workers.

        Args:
            model: That it is attached to.
            data: What `model.fit` gives a step.
        """
        self._check_optimizer(model)  # compile may have been called again
        return train_step.run(
            model,
            data,
            self.num_workers,
            lambda gradients: model.optimizer.apply(
                gradients, model.trainable_variables
            ),
        )
