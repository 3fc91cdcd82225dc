"""What a worker takes of its host."""

from __future__ import annotations

import os

import tensorflow as tf
from absl import logging


def share(local_rank: int, local_size: int, intra_threads: int = 0) -> None:
    """Gives a worker a GPU of its own, or a part of the cores.

    Two workers that both use all cores are slower than two that share them.
    Call it before TensorFlow makes its first tensor.

    Args:
      local_rank: number of this worker among those on its host.
      local_size: number of workers on its host.
      intra_threads: threads of an op; 0 is the host's cores divided by
        `local_size`, at least 1, or TensorFlow's choice for one worker.
    """
    gpus = tf.config.list_physical_devices("GPU")
    cores = len(os.sched_getaffinity(0))
    try:
        if gpus:
            own = gpus[local_rank % len(gpus)]
            tf.config.set_visible_devices(own, "GPU")
            tf.config.experimental.set_memory_growth(own, True)
        if intra_threads or local_size > 1:
            threads = intra_threads or max(1, cores // local_size)
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            # With more than that, a LeNet step of two workers on two cores
            # took 15 to 40 % longer.
            tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        logging.warning(
            "TensorFlow runs already: its threads and devices stay as they are."
        )
