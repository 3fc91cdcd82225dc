"""Sparse gradients (IndexedSlices): rows and indices, by allgather.

Each worker touches other rows, so rows are gathered, not added on the way.
Two collectives serve all sparse gradients of a step: one for indices, one for
rows. Workers without rows take part.
"""

import tensorflow as tf


def is_sparse(gradient) -> bool:
    """Whether a gradient is an IndexedSlices."""
    return isinstance(gradient, tf.IndexedSlices)


def sum_dtype(dtype: tf.DType) -> tf.DType:
    """Sums and divisions are done in at least float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def merge_duplicates(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """Adds rows of the same index; indices come back unique and sorted.

    >>> s = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), [3, 0, 3])
    >>> m = merge_duplicates(s)
    >>> m.indices.numpy().tolist(), m.values.numpy().tolist()
    ([0, 3], [[2.0], [5.0]])
    """
    indices = tf.unique(tf.sort(slices.indices)).y
    values = tf.math.unsorted_segment_sum(
        slices.values,
        tf.searchsorted(indices, slices.indices),
        tf.size(indices),
    )
    return tf.IndexedSlices(values, indices, slices.dense_shape)


def gather_indices(slices, workers, name) -> list:
    """All workers' indices.

    Args:
        slices: `[local workers][tensors]` IndexedSlices.
        workers: `collectives.Workers`.
        name: Prefix of the collective's name.

    Returns:
        `[workers][tensors]` int64 vectors.
    """
    messages = []
    for local in slices:
        indices = [tf.cast(s.indices, tf.int64) for s in local]
        counts = tf.stack([tf.size(i, tf.int64) for i in indices])
        messages.append(tf.concat([counts, *indices], axis=0))
    gathered = workers.gather(tf.concat(messages, axis=0), f"{name}.indices")
    num_tensors = len(slices[0])
    result, position = [], tf.constant(0, tf.int64)
    for _ in range(workers.size * len(slices)):
        counts = gathered[position : position + num_tensors]
        position += num_tensors
        parts = []
        for t in range(num_tensors):
            parts.append(gathered[position : position + counts[t]])
            position += counts[t]
        result.append(parts)
    return result


def gather_parts(messages, lengths, workers, name) -> list:
    """All workers' messages, which need not be of one length.

    Args:
        messages: `[local workers]` vectors.
        lengths: `[workers]` scalars: length of each worker's message.
        workers: `collectives.Workers`.
        name: Name of the collective.

    Returns:
        `[workers]` vectors.
    """
    gathered = workers.gather(tf.concat(messages, axis=0), name)
    parts, position = [], tf.constant(0, tf.int64)
    for length in lengths:
        parts.append(gathered[position : position + length])
        position += length
    return parts


def sum_rows(rows, indices, like: tf.IndexedSlices) -> tf.IndexedSlices:
    """Adds all workers' rows of one tensor.

    Args:
        rows: `[workers]` tensors `[count, ...]`.
        indices: `[workers]` vectors `[count]`.
        like: Gives the dtype of indices and the dense shape.
    """
    return merge_duplicates(
        tf.IndexedSlices(
            tf.concat(rows, axis=0),
            tf.cast(tf.concat(indices, axis=0), like.indices.dtype),
            like.dense_shape,
        )
    )


def average_float(slices, workers, name, wire_dtype=None) -> list:
    """Averages sparse gradients, rows sent as floats.

    Args:
        slices: `[local workers][tensors]` IndexedSlices.
        workers: `collectives.Workers`.
        name: Prefix of the collectives' names.
        wire_dtype: Of the rows on the wire; None: the widest of theirs.

    Returns:
        One IndexedSlices a tensor, indices unique and sorted.
    """
    slices = [[merge_duplicates(s) for s in local] for local in slices]
    if wire_dtype is None:
        wide = any(s.values.dtype == tf.float64 for s in slices[0])
        wire_dtype = tf.float64 if wide else tf.float32
    indices = gather_indices(slices, workers, name)
    shapes = [tf.shape(s.values)[1:] for s in slices[0]]
    sizes = [
        [
            tf.size(of_tensor, tf.int64)
            * tf.cast(tf.reduce_prod(shape), tf.int64)
            for of_tensor, shape in zip(of_worker, shapes, strict=True)
        ]
        for of_worker in indices
    ]
    messages = [
        tf.concat(
            [tf.cast(tf.reshape(s.values, [-1]), wire_dtype) for s in local],
            axis=0,
        )
        for local in slices
    ]
    parts = gather_parts(
        messages, [tf.add_n(size) for size in sizes], workers, f"{name}.rows"
    )
    averages = []
    of_worker = [
        tf.split(part, size) for part, size in zip(parts, sizes, strict=True)
    ]
    for t, like in enumerate(slices[0]):
        rows = [
            tf.cast(
                tf.reshape(part[t], tf.concat([[-1], shapes[t]], axis=0)),
                sum_dtype(like.values.dtype),
            )
            for part in of_worker
        ]
        total = sum_rows(rows, [i[t] for i in indices], like)
        averages.append(
            tf.IndexedSlices(
                tf.cast(total.values / len(indices), like.values.dtype),
                total.indices,
                total.dense_shape,
            )
        )
    return averages
