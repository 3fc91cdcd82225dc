"""What times depend on: the machine, TensorFlow's threads, versions."""

from __future__ import annotations

import os
import platform

import keras
import tensorflow as tf


def machine() -> dict:
    """The machine, for reports.

    TensorFlow's threads belong to the process and cannot be changed once it
    runs: `tf.config.threading.set_intra_op_parallelism_threads(n)` goes before
    the first operation.

    Returns:
        Dict of processor, cores (those this process may use), intra_op_threads
        and inter_op_threads of TensorFlow (0: one a core), devices, and the
        versions of TensorFlow and Keras.

    >>> sorted(machine())
    ['cores', 'devices', 'inter_op_threads', 'intra_op_threads', 'keras',
     'processor', 'tensorflow']
    """
    threads = tf.config.threading
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )
    return {
        "processor": _processor(),
        "cores": cores,
        "intra_op_threads": threads.get_intra_op_parallelism_threads(),
        "inter_op_threads": threads.get_inter_op_parallelism_threads(),
        "devices": [d.device_type for d in tf.config.list_logical_devices()],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
