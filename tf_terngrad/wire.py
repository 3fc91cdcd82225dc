"""Three ways to move ternary gradients, with one result.

All give the exact integer sum of all workers' levels, so all give the same
bits; they differ in what they send.

| exchange | how | collectives |
|---|---|---|
| allgather | every worker's trits to every worker | 1 |
| allreduce | base-(2N + 1) digits in int64 words, added on the way | 1 |
| alltoall | trits to the owner of a shard, its sums gathered as digits | 2 |

`bits` is what one worker sends over a ring: (N - 1) / N of what it has for each
other worker; transports add headers of their own.

Large payloads go in parts: one is on its way while others are encoded and
decoded.
"""

import dataclasses
import functools
import math

import tensorflow as tf

import custom_ops
from tf_terngrad.compression import ring_bits

# Encoding and decoding an element, by kind of device: orders of magnitude that
# were measured with one core (2 ns) or follow from memory bandwidth.
_KERNEL_SECONDS = {"CPU": 2e-9, "GPU": 2e-11}
_MAX_PARTS = 16


class AllReduce:
    """Digits of base 2N + 1: an ordinary sum adds all workers' at once."""

    collectives = 1

    @staticmethod
    def bits(sizes, num_workers: int) -> float:
        """Bits that one worker sends for tensors of these sizes."""
        words = sum(custom_ops.num_words(n, num_workers) for n in sizes)
        return ring_bits(64.0 * (words + 1), num_workers)  # 1: the guard

    @staticmethod
    def average(encode, decode, workers, num_local, name) -> list:
        """See `Plan.average`."""
        num_workers = workers.size * num_local
        payloads = encode(num_workers=num_workers)
        total = functools.reduce(tf.add, payloads)
        return decode(
            workers.sum(total, f"{name}.payload"),
            num_workers=num_workers,
            layout="sum",
        )


class AllGather:
    """Five trits a byte, from every worker to every worker."""

    collectives = 1

    @staticmethod
    def bits(sizes, num_workers: int) -> float:
        """Bits that one worker sends for tensors of these sizes."""
        return (num_workers - 1) * 8.0 * _trit_bytes(sizes)

    @staticmethod
    def average(encode, decode, workers, num_local, name) -> list:
        """See `Plan.average`."""
        num_workers = workers.size * num_local
        payloads = encode(num_workers=num_workers, trits=True)
        return decode(
            workers.gather(tf.concat(payloads, axis=0), f"{name}.payload"),
            num_workers=num_workers,
            layout="gathered",
        )


class AllToAll:
    """Trits to the owners of shards; their exact sums to all, as digits."""

    collectives = 2

    @staticmethod
    def bits(sizes, num_workers: int) -> float:
        """Bits that one worker sends for tensors of these sizes."""
        groups = _trit_bytes(sizes) // custom_ops.GROUP_BYTES
        shard = _shard_groups(groups, num_workers, num_workers)
        words = custom_ops.num_words(shard * custom_ops.GROUP, num_workers)
        there = 8.0 * custom_ops.GROUP_BYTES * shard
        return (num_workers - 1) * (there + 64.0 * words)

    @staticmethod
    def average(encode, decode, workers, num_local, name) -> list:
        """See `Plan.average`."""
        num_workers = workers.size * num_local
        payloads = encode(num_workers=num_workers, trits=True)
        size = tf.size(payloads[0], tf.int64)
        shard = custom_ops.GROUP_BYTES * _shard_groups(
            size // custom_ops.GROUP_BYTES, num_workers, workers.size
        )
        shards = [
            tf.reshape(
                tf.pad(p, [[0, workers.size * shard - size]]),
                [workers.size, shard],
            )
            for p in payloads
        ]
        # [owner, local worker, shard]: each owner's message is consecutive.
        message = tf.reshape(tf.stack(shards, axis=1), [-1])
        parts = workers.all_to_all(message, f"{name}.payload")
        words = custom_ops.ternary_sum_trits(parts, num_workers)
        return decode(
            workers.gather(words, f"{name}.sums"),
            num_workers=num_workers,
            layout="sum_of_trits",
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """How dense gradients travel.

    Attributes:
        exchange: Key of `EXCHANGES`.
        num_parts: Parts into which the payload is cut.
    """

    exchange: str
    num_parts: int = 1

    def bits(self, sizes, num_workers: int) -> float:
        """Bits that one worker sends for tensors of these sizes."""
        return sum(
            EXCHANGES[self.exchange].bits(
                custom_ops.part_sizes(sizes, part, self.num_parts), num_workers
            )
            for part in range(self.num_parts)
        )

    def average(self, codec, workers, name) -> list:
        """The averages of gradients over workers.

        Args:
            codec: `codec.Codec` of the gradients.
            workers: `collectives.Workers`.
            name: Prefix of the collectives' names.
        """
        averages = None
        for part in range(self.num_parts):
            position = dict(part=part, num_parts=self.num_parts)
            averages = EXCHANGES[self.exchange].average(
                functools.partial(codec.encode, **position),
                functools.partial(codec.decode, **position, before=averages),
                workers,
                codec.num_local,
                f"{name}.{part}",
            )
        return averages


# In the order of preference where they cost the same.
EXCHANGES = {
    "allgather": AllGather,
    "allreduce": AllReduce,
    "alltoall": AllToAll,
}


def choose(sizes, num_workers: int, link) -> str:
    """The exchange that takes the least time on a link.

    `seconds = collectives * link.latency + bits / link.bandwidth`

    Args:
        sizes: Elements of each tensor.
        num_workers: N.
        link: `Link`.
    """

    def seconds(name):
        exchange = EXCHANGES[name]
        bits = exchange.bits(sizes, num_workers)
        return exchange.collectives * link.latency + bits / link.bandwidth

    return min(EXCHANGES, key=seconds)


def choose_parts(sizes, link) -> int:
    """The number of parts that hides most of encoding and decoding.

    Args:
        sizes: Elements of each tensor.
        link: `Link`.
    """
    kind = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
    return best_parts(_KERNEL_SECONDS[kind] * sum(sizes), link.latency)


def best_parts(codec_seconds: float, latency: float) -> int:
    """The P with the least `P * latency + codec_seconds / P`.

    P parts cost P latencies, and what is not hidden behind sending is one
    part's encoding and decoding.

    >>> [best_parts(s, 1e-3) for s in (0.0, 1e-3, 0.1, 10.0)]
    [1, 1, 10, 16]
    """
    if codec_seconds <= latency:
        return 1
    if latency <= 0:
        return _MAX_PARTS
    return min(round(math.sqrt(codec_seconds / latency)), _MAX_PARTS)


def _trit_bytes(sizes) -> int:
    return custom_ops.GROUP_BYTES * sum(map(custom_ops.num_groups, sizes))


def _shard_groups(groups, num_workers, num_shards):
    """Groups of one shard: its sums fill whole words, so that words of shards
    follow each other without a gap.
    """
    digits = custom_ops.digits_per_word(num_workers)
    unit = digits // math.gcd(digits, custom_ops.GROUP)
    return -(-groups // (num_shards * unit)) * unit
