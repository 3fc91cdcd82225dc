"""The baselines: gradients as floats."""

import keras
import tensorflow as tf

from tf_terngrad import sparse
from tf_terngrad.compression import Compression, pick, ring_bits


@keras.saving.register_keras_serializable(package="tf_terngrad")
class NoCompression(Compression):
    """Gradients as float32 (float64 for float64 gradients)."""

    _bits_per_element = 32
    _wire_dtype = None  # None: by the gradient

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
    ):
        """See `Compression.average`."""
        del paths, ids, step, statistics, feedback
        rows = [i for i, g in enumerate(gradients[0]) if sparse.is_sparse(g)]
        dense = [i for i in range(len(gradients[0])) if i not in set(rows)]
        averages = [None] * len(gradients[0])
        averaged = self._average_dense(pick(dense, gradients), workers, name)
        for i, gradient in zip(dense, averaged, strict=True):
            averages[i] = gradient
        if rows:
            averaged = sparse.average_float(
                pick(rows, gradients), workers, name, self._wire_dtype
            )
            for i, gradient in zip(rows, averaged, strict=True):
                averages[i] = gradient
        return averages

    def _average_dense(self, gradients, workers, name):
        num_workers = workers.size * len(gradients)
        sums = [tf.add_n(g) for g in zip(*gradients, strict=True)]
        wire = [
            tf.cast(g, self._wire_dtype or sparse.sum_dtype(g.dtype))
            for g in sums
        ]
        averages = list(sums)
        # One collective for each dtype; nothing is sent of empty tensors.
        for dtype in sorted({tensor.dtype.name for tensor in wire}):
            members = [
                i
                for i, tensor in enumerate(wire)
                if tensor.dtype.name == dtype
                and tensor.shape.num_elements() != 0
            ]
            totals = workers.sum_all(
                [wire[i] for i in members], f"{name}.{dtype}"
            )
            for i, total in zip(members, totals, strict=True):
                # Divided in at least float32: only the wire is narrow.
                total = tf.cast(total, sparse.sum_dtype(sums[i].dtype))
                averages[i] = tf.cast(total / num_workers, sums[i].dtype)
        return averages

    def bits_sent(self, sizes, paths, num_workers):
        """See `Compression.bits_sent`."""
        del paths
        return ring_bits(self._bits_per_element * sum(sizes), num_workers)


@keras.saving.register_keras_serializable(package="tf_terngrad")
class FP16(NoCompression):
    """Gradients as float16 on the wire, as Horovod's own compression."""

    _bits_per_element = 16
    _wire_dtype = tf.float16
