"""What a collective costs on the links between workers."""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from tf_terngrad import checks, collectives

_ROUNDS = 5
_LARGE_BYTES = 2 * 2**20


@dataclasses.dataclass(frozen=True)
class Link:
    """Latency and bandwidth, for the choice of the exchange.

    Attributes:
        latency: Of one collective, seconds.
        bandwidth: Bits a second that one worker sends.
    """

    latency: float = 1e-3
    bandwidth: float = 1e9

    def __post_init__(self):
        checks.positive_float("latency", self.latency)
        checks.positive_float("bandwidth", self.bandwidth)


def measure_link(process_set=None) -> Link:
    """Measures the link; all workers call it, once, at the start.

    Times allreduces of 8 bytes and of 2 MiB: medians of five on the slowest
    worker, the same values on all of them.

    Returns:
        `Link`; the default one where there is one worker.
    """
    workers = collectives.Workers(process_set)
    if workers.size == 1 or workers.rank is None:
        return Link()
    small = _seconds(workers, 1, "link.small")
    large = _seconds(workers, _LARGE_BYTES // 8, "link.large")
    slowest = workers.max(tf.constant([small, large], tf.float64), "link.times")
    small, large = slowest.numpy().tolist()
    sent = 2 * (workers.size - 1) / workers.size * 8 * _LARGE_BYTES
    # Noise may make the large one the faster: then it is a fast link.
    return Link(latency=small, bandwidth=sent / max(large - small, large / 100))


def _seconds(workers, num_words, name) -> float:
    words = tf.zeros([num_words], tf.int64)
    times = []
    for i in range(_ROUNDS + 1):
        workers.max(tf.zeros([1]), f"{name}.start")
        start = time.perf_counter()
        workers.sum(words, name)
        if i > 0:
            times.append(time.perf_counter() - start)
    return float(np.median(times))
