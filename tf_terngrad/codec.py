"""Gradients of one exchange, as what travels."""

import tensorflow as tf

import custom_ops


class Codec:
    """Encodes the gradients of this process's workers, decodes averages.

    Encoding draws random bits by step, rank, variable and element: parts and
    payloads of one gradient agree whatever their order.

    Args:
        gradients: `[local workers][tensors]` dense gradients of known dtype.
        ids: Numbers of their variables.
        clip_levels: `[local workers]` of `[buckets]`.
        scalers: `[buckets]`, shared by all workers.
        step: int64 scalar.
        workers: `collectives.Workers`.
        bucket_size: Elements that share a scaler; 0: one scaler a tensor.
        seed: int64.
    """

    def __init__(
        self,
        gradients,
        ids,
        clip_levels,
        scalers,
        step,
        workers,
        bucket_size,
        seed,
    ):
        self._gradients = gradients
        self._ids = ids
        self._clip_levels = clip_levels
        self._scalers = scalers
        self._step = step
        self._rank = workers.rank * len(gradients)
        self._bucket_size = bucket_size
        self._seed = seed
        self._counts = [None] * len(gradients)

    @property
    def num_local(self) -> int:
        """Workers in this process."""
        return len(self._gradients)

    def encode(self, *, num_workers, trits=False, part=0, num_parts=1) -> list:
        """Each local worker's payload of a part; the next part comes after."""
        payloads = []
        for i, local in enumerate(self._gradients):
            payload, self._counts[i] = custom_ops.ternary_encode(
                local,
                self._clip_levels[i],
                self._scalers,
                self._step,
                tensor_ids=self._ids,
                bucket_size=self._bucket_size,
                num_workers=num_workers,
                rank=self._rank + i,
                seed=self._seed,
                trits=trits,
                part=part,
                num_parts=num_parts,
                counts=self._counts[i],
            )
            payloads.append(payload)
        return payloads

    def decode(
        self, payload, *, num_workers, layout, part, num_parts, before
    ) -> list:
        """Averages: this part's elements, all others as in `before`."""
        like = self._gradients[0]
        return custom_ops.ternary_decode(
            payload,
            self._scalers,
            [tf.shape(g, tf.int64) for g in like],
            [g.dtype for g in like],
            bucket_size=self._bucket_size,
            num_workers=num_workers,
            layout=layout,
            part=part,
            num_parts=num_parts,
            before=before,
        )

    def count(self, statistics) -> None:
        """Adds what was encoded to `ExchangeStatistics`; None: nothing."""
        if statistics is None:
            return
        for local, counts in zip(self._gradients, self._counts, strict=True):
            sizes = tf.stack([tf.size(g, tf.int64) for g in local])
            statistics.count(self._ids, sizes, *tf.unstack(counts, num=2))
