"""A gradient tape that averages over workers, for custom loops."""

import tensorflow as tf

from tf_terngrad.exchange import exchange


class DistributedGradientTape:
    """Wraps a `tf.GradientTape`: `gradient` returns averages over workers.

    Args:
        tape: `tf.GradientTape`, recorded already.
        compression: `TernGrad`, `FP16` or `NoCompression`. Keep one object
            over all steps: it counts them, outside `tf.function`.
        process_set: Horovod process set; None: all workers.
        feedback: `ErrorFeedback` of the variables, made outside `tf.function`,
            for `TernGrad(error_feedback=True)`.

    Example:
        compression = tg.TernGrad()

        @tf.function
        def train_step(images, labels):
            with tf.GradientTape() as tape:
                loss = loss_fn(labels, model(images, training=True))
            tape = tg.DistributedGradientTape(tape, compression)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
    """

    def __init__(
        self,
        tape: tf.GradientTape,
        compression,
        process_set=None,
        feedback=None,
    ):
        self._tape = tape
        self._feedback = feedback
        self._compression = compression
        self._process_set = process_set

    def gradient(self, target, sources, output_gradients=None) -> list:
        """As `tf.GradientTape.gradient`, for a flat list of variables."""
        gradients = self._tape.gradient(target, sources, output_gradients)
        return exchange(
            gradients,
            sources,
            self._compression,
            process_set=self._process_set,
            name=f"tape{self._compression.number}",
            feedback=self._feedback,
        )
