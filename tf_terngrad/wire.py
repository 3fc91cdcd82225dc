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
"""

import functools
import math

import tensorflow as tf

import custom_ops
from tf_terngrad.compression import ring_bits


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
        """See `average`."""
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
        """See `average`."""
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
        """See `average`."""
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


def _trit_bytes(sizes) -> int:
    return custom_ops.GROUP_BYTES * sum(map(custom_ops.num_groups, sizes))


def _shard_groups(groups, num_workers, num_shards):
    """Groups of one shard: its sums fill whole words, so that words of shards
    follow each other without a gap.
    """
    digits = custom_ops.digits_per_word(num_workers)
    unit = digits // math.gcd(digits, custom_ops.GROUP)
    return -(-groups // (num_shards * unit)) * unit
