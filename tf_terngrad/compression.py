"""How gradients travel: what all compressions have in common."""

import abc
import functools

import tensorflow as tf

from tf_terngrad import numbering


class Compression(abc.ABC):
    """Averages lists of gradients over workers.

    Use `NoCompression`, `FP16` or `TernGrad`.

    Attributes:
        error_feedback: Whether `average` wants an `ErrorFeedback`.
        number: In order of construction: the same on all workers, whatever
            they trace. It tells the collectives of two tapes apart.
    """

    error_feedback = False

    def __new__(cls, *args, **kwargs):
        del args, kwargs
        self = super().__new__(cls)
        self.number = numbering.take("compression")
        return self

    @functools.cached_property
    def step(self) -> tf.Variable:
        """Exchanges so far: the counter of `tg.exchange` without `step`."""
        with tf.init_scope():
            return tf.Variable(0, dtype=tf.int64, trainable=False)

    @abc.abstractmethod
    def average(
        self,
        gradients,
        paths,
        ids,
        step,
        workers,
        name,
        statistics=None,
        feedback=None,
    ) -> list:
        """Averages gradients over all workers.

        Args:
            gradients: `[local workers][tensors]`, dense or IndexedSlices: one
                list for each worker that this process stands for (one, or
                those of LocalWorkers).
            paths: One name a tensor, for patterns and messages.
            ids: One number a tensor: its position in the variable list.
            step: int64 scalar tensor, the number of this exchange.
            workers: `collectives.Workers`.
            name: Prefix of the collectives' names.
            statistics: `ExchangeStatistics` to update, or None.
            feedback: `ErrorFeedback`, for a compression that wants one.

        Returns:
            One gradient for each of `ids`, of the same kind, shape and dtype.
        """

    @abc.abstractmethod
    def bits_sent(self, sizes, paths, num_workers: int) -> float:
        """Bits that one worker sends for one exchange of dense gradients.

        Counts payload and scalers, not the transport's own headers.

        Args:
            sizes: Elements of each gradient.
            paths: One name a gradient.
            num_workers: N.
        """

    def check(self, paths) -> None:  # noqa: B027
        """Raises ValueError if this does not fit variables of these names."""

    def get_config(self) -> dict:
        """Constructor arguments, as plain Python values."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Compression":
        """Inverse of `get_config`."""
        return cls(**config)

    def agreement(self) -> dict:
        """What all workers must have in common: all but the seed."""
        config = {k: v for k, v in self.get_config().items() if k != "seed"}
        return {"class": type(self).__name__, **config}

    def __repr__(self) -> str:
        arguments = [f"{k}={v!r}" for k, v in self.get_config().items()]
        return f"{type(self).__name__}({', '.join(arguments)})"


def ring_bits(bits: float, num_workers: int) -> float:
    """Bits each worker sends in a ring allreduce of a buffer of `bits`.

    2 (N - 1) / N times the buffer; 0 for one worker.
    """
    return 2.0 * (num_workers - 1) / num_workers * bits


def pick(positions, gradients) -> list:
    """Of each local worker's list, the entries at these positions."""
    return [[local[i] for i in positions] for local in gradients]
