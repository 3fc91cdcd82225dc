"""Sparse gradients of three levels: rows are ternarized, indices stay exact."""

import tensorflow as tf

import custom_ops
from tf_terngrad import sparse


def average_rows(slices, scalers, encode, workers, name) -> list:
    """Averages sparse gradients: levels by allgather, summed where they meet.

    Args:
        slices: `[local workers][tensors]` IndexedSlices, indices unique.
        scalers: `[tensors]`, shared by all workers.
        encode: `encode(num_workers=)` gives the payload of each local worker's
            rows.
        workers: `collectives.Workers`.
        name: Prefix of the collectives' names.

    Returns:
        One IndexedSlices a tensor, indices unique and sorted.
    """
    # Nothing is added on the way: digits of one worker, 1.6 bits each.
    payloads = encode(num_workers=1)
    indices = sparse.gather_indices(slices, workers, name)
    shapes = [
        [
            tf.concat(
                [[tf.size(i, tf.int64)], tf.shape(s.values, tf.int64)[1:]],
                axis=0,
            )
            for i, s in zip(of_worker, slices[0], strict=True)
        ]
        for of_worker in indices
    ]
    digits = custom_ops.digits_per_word(1)
    lengths = [
        tf.add_n([-(-tf.reduce_prod(s) // digits) for s in of_worker]) + 1
        for of_worker in shapes
    ]
    parts = sparse.gather_parts(payloads, lengths, workers, f"{name}.rows")
    wide = [sparse.sum_dtype(s.values.dtype) for s in slices[0]]
    levels = [
        custom_ops.ternary_decode(
            part,
            tf.ones_like(scalers),
            of_worker,
            wide,
            bucket_size=0,
            num_workers=1,
        )
        for part, of_worker in zip(parts, shapes, strict=True)
    ]
    averages = []
    for t, like in enumerate(slices[0]):
        total = sparse.sum_rows(
            [of_worker[t] for of_worker in levels],
            [of_worker[t] for of_worker in indices],
            like,
        )
        scaler = tf.cast(scalers[t], wide[t])
        ratio = tf.where(
            tf.math.is_inf(scaler),
            tf.cast(float("nan"), wide[t]),
            scaler / len(indices),
        )
        values = tf.cast(total.values * ratio, like.values.dtype)
        averages.append(
            tf.IndexedSlices(values, total.indices, total.dense_shape)
        )
    return averages
