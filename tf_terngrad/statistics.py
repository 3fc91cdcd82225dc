"""Counts of what an exchange sent."""

import tensorflow as tf


class ExchangeStatistics:
    """How many elements were sent as not zero, and how many were clipped.

    Counters of this worker since the last `reset`, updated inside the train
    function, by position in the variable list. They are no part of the
    training state: neither saved nor broadcast.

    Args:
        num_variables: Length of the variable list.

    Attributes:
        num_elements: int64 `[variables]`: elements that were ternarized.
        num_nonzero: int64 `[variables]`: those sent as -1 or +1.
        num_clipped: int64 `[variables]`: those cut to their clip level.
    """

    def __init__(self, num_variables: int):
        def counters():
            return tf.Variable(
                tf.zeros([num_variables], tf.int64), trainable=False
            )

        with tf.init_scope():
            self.num_elements = counters()
            self.num_nonzero = counters()
            self.num_clipped = counters()

    def count(self, ids, num_elements, num_nonzero, num_clipped) -> None:
        """Adds one exchange's counts, int64 `[len(ids)]` each."""
        positions = tf.constant(ids, tf.int64)[:, None]
        shape = tf.constant(self.num_elements.shape.as_list(), tf.int64)
        for variable, counts in (
            (self.num_elements, num_elements),
            (self.num_nonzero, num_nonzero),
            (self.num_clipped, num_clipped),
        ):
            variable.assign_add(tf.scatter_nd(positions, counts, shape))

    def totals(self) -> tuple[int, int, int]:
        """(elements, nonzero, clipped), summed over variables."""
        return tuple(
            int(tf.reduce_sum(variable))
            for variable in (
                self.num_elements,
                self.num_nonzero,
                self.num_clipped,
            )
        )

    def reset(self) -> None:
        """Sets all counters to 0."""
        for variable in (
            self.num_elements,
            self.num_nonzero,
            self.num_clipped,
        ):
            variable.assign(tf.zeros_like(variable))
