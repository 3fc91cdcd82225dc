"""Horovod's own Compressor interface: `tg.Compression.*`.

For code that uses Horovod's tape or allreduce and wants to change one
argument:

    hvd.DistributedGradientTape(
        tape, compression=tg.Compression.terngrad, op=hvd.Sum)
"""

import tensorflow as tf

import custom_ops
from tf_terngrad import collectives
from tf_terngrad.terngrad import TernGrad


class HorovodTernGrad:
    """Ternary gradients through Horovod's Compressor interface.

    Use it with `op=hvd.Sum`; the result is the **average** over workers, since
    ternary levels must be added as integers and divided last. With op=Average
    the payload's guard word is wrong, and decompressing raises.

    Each tensor takes two collectives (its scaler, its payload):
    `tg.DistributedOptimizer` and `tg.DistributedGradientTape` take two for all
    tensors together. IndexedSlices do not pass through a compressor: Horovod
    returns their **sum**; pass sparse_as_dense=True to its tape to average
    them as well. With one worker Horovod does not call a compressor.

    Args:
        config: `TernGrad`; `min_size`, `exempt` are not supported: Horovod
            does not say which variable a tensor belongs to.
    """

    def __init__(self, config: TernGrad):
        if config.min_size or config.exempt:
            raise ValueError(
                "Invalid value for argument config. Expected a TernGrad "
                "without min_size and exempt: Horovod's Compressor interface "
                "does not say which variable a tensor belongs to. Received: "
                f"config={config!r}"
            )
        self._config = config

    @tf.autograph.experimental.do_not_convert
    def compress(self, tensor: tf.Tensor):
        """Ternarizes one gradient.

        Args:
            tensor: Dense gradient.

        Returns:
            int64 `[words + 1]` payload to be summed, and a context for
            `decompress`.
        """
        config = self._config
        workers = collectives.Workers()
        bucket_size = config.bucket_size or 0
        own = custom_ops.ternary_scalers(
            [tensor], config.clip_factor, bucket_size
        )
        scalers = workers.max(own, f"compress.{_name(tensor)}")
        # Each call is a step of its own: no two share a random stream.
        step = config.step
        now = tf.identity(step)
        step.assign_add(1)
        payload, _ = custom_ops.ternary_encode(
            [tensor],
            own if config.clip_mode == "own" else scalers,
            scalers,
            now,
            tensor_ids=[0],
            bucket_size=bucket_size,
            num_workers=workers.size,
            rank=workers.rank,
            seed=config.seed,
        )
        context = (scalers, tf.shape(tensor, tf.int64), tensor.dtype)
        return payload, context

    @tf.autograph.experimental.do_not_convert
    def decompress(self, tensor: tf.Tensor, context) -> tf.Tensor:
        """The average gradient from the sum of payloads.

        Raises:
            tf.errors.InvalidArgumentError: The payload was not summed with
                op=hvd.Sum over all workers.
        """
        scalers, shape, dtype = context
        return custom_ops.ternary_decode(
            tensor,
            scalers,
            [shape],
            [dtype],
            bucket_size=self._config.bucket_size or 0,
            num_workers=collectives.size(),
        )[0]


class _Narrow:
    """Casts floating point gradients to another dtype, or leaves them."""

    def __init__(self, dtype):
        self._dtype = dtype

    def compress(self, tensor):
        if self._dtype is None or not tensor.dtype.is_floating:
            return tensor, tensor.dtype
        return tf.cast(tensor, self._dtype), tensor.dtype

    def decompress(self, tensor, context):
        return tf.cast(tensor, context)


class Compression:
    """Compressors for Horovod's own API, by name.

    Attributes:
        none: Gradients as they are.
        fp16: Gradients as float16.
        terngrad: Ternary gradients, clip_factor 2.5; with op=hvd.Sum it
            returns the average. Others: `HorovodTernGrad(TernGrad(...))`.
    """

    none = _Narrow(None)
    fp16 = _Narrow(tf.float16)
    terngrad = HorovodTernGrad(TernGrad())


def _name(tensor) -> str:
    """A name for the collective: in a graph, that of the tensor."""
    if tf.executing_eagerly():
        return "eager"
    return "".join(c if c.isalnum() else "_" for c in tensor.name)
