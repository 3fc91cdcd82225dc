"""The equations: t_step = t_comp + t_comm.

    t_comm = t_kernels + sum over collectives of
             (call + rounds * alpha + bytes / bandwidth) - t_hidden

A collective over N workers on M nodes of G workers each runs a ring inside
every node and a ring between nodes. For a buffer of B bytes:

| collective | inside: rounds, bytes | between: rounds, bytes of a node |
|---|---|---|
| allreduce | 2 (G-1), 2 (G-1)/G B | 2 (M-1), 2 (M-1)/M B |
| allgather, B each | G-1, (G-1)/G N B | M-1, (M-1) G B |
| alltoall, B each | G-1, (G-1)/N B | M-1, G (N-G)/N B |

All workers are equally fast. Ternary payloads travel in P parts, and while one
does others are encoded and decoded: of encoding and decoding (K) and P calls
and the transfer (T) only the longer counts whole, of the other one part:
max(T + K/P, K + uT + T/P). u is the share of a transfer in which the core that
encodes is busy with moving bytes: 0 with a GPU. Calls beside kernels that have
the workers' cores take longer than others. Nothing else overlaps. The bytes are
payload: the headers of a transport belong to the bandwidth.

Departure: the supplementary material of the paper has a model of its own,
whose code is not public; this one is made of the collectives that this
package calls.

Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NIPS 2017, section 6 and figure 5.
"""

import dataclasses

import custom_ops
from tf_terngrad import checks, wire

# Horovod answers once a cycle, HOROVOD_CYCLE_TIME (default: 1 ms).
HOROVOD_CALL_S = 1e-3

FLOAT_EXCHANGES = ("fp32", "fp16")
TERNARY_EXCHANGES = ("allreduce", "allgather", "alltoall")
EXCHANGES = FLOAT_EXCHANGES + TERNARY_EXCHANGES


@dataclasses.dataclass(frozen=True)
class Channel:
    """What a message costs: `alpha_s + bytes / bytes_per_s`.

    Attributes:
        alpha_s: Seconds of an empty message, one way.
        bytes_per_s: Of payload, in one direction.
    """

    alpha_s: float
    bytes_per_s: float

    def __post_init__(self):
        checks.positive_float("alpha_s", self.alpha_s)
        checks.positive_float("bytes_per_s", self.bytes_per_s)

    def seconds(self, rounds: float, num_bytes: float) -> float:
        """Of that many rounds which move `num_bytes` in all."""
        return rounds * self.alpha_s + num_bytes / self.bytes_per_s


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Workers and what joins them.

    Attributes:
        num_workers: N.
        network: Channel between nodes.
        inside: Channel inside a node; unused with one worker a node.
        workers_per_node: G; N above it must be a multiple of it.
        call_s: Seconds of one collective before anything moves.
        busy_call_s: The same beside encoding and decoding, where these have
            the workers' cores: Horovod's own threads wait for them. None:
            `call_s`, as with a GPU.
        busy_share: u, of the time in which bytes move, in which the core that
            encodes and decodes is busy with moving them; in [0, 1].
    """

    num_workers: int
    network: Channel
    inside: Channel
    workers_per_node: int = 1
    call_s: float = HOROVOD_CALL_S
    busy_call_s: float | None = None
    busy_share: float = 0.0

    def __post_init__(self):
        checks.integer("num_workers", self.num_workers, 1)
        checks.integer("workers_per_node", self.workers_per_node, 1)
        if not 0 <= self.busy_share <= 1:
            raise ValueError(
                "Invalid value for argument busy_share. Expected a number in "
                f"[0, 1]. Received: busy_share={self.busy_share}"
            )
        if self.num_workers % self.on_a_node:
            raise ValueError(
                "Invalid value for argument num_workers. Expected at most "
                f"workers_per_node={self.workers_per_node}, or a multiple of "
                f"it. Received: num_workers={self.num_workers}"
            )

    @property
    def on_a_node(self) -> int:
        """G: workers on each node."""
        return min(self.num_workers, self.workers_per_node)

    @property
    def num_nodes(self) -> int:
        """M."""
        return self.num_workers // self.on_a_node

    def allreduce_s(self, num_bytes: float) -> float:
        """Seconds of the sum of a buffer."""
        g, m = self.on_a_node, self.num_nodes
        return (
            self.call_s
            + self.inside.seconds(2 * (g - 1), 2 * (g - 1) / g * num_bytes)
            + self.network.seconds(2 * (m - 1), 2 * (m - 1) / m * num_bytes)
        )

    def allgather_s(self, num_bytes: float) -> float:
        """Seconds until every worker has all workers' `num_bytes`."""
        g, m = self.on_a_node, self.num_nodes
        total = self.num_workers * num_bytes
        return (
            self.call_s
            + self.inside.seconds(g - 1, (g - 1) / g * total)
            + self.network.seconds(m - 1, (m - 1) * g * num_bytes)
        )

    def alltoall_s(self, num_bytes: float) -> float:
        """Seconds until each worker has its N-th of all `num_bytes`."""
        n, g, m = self.num_workers, self.on_a_node, self.num_nodes
        return (
            self.call_s
            + self.inside.seconds(g - 1, (g - 1) / n * num_bytes)
            + self.network.seconds(m - 1, g * (n - g) / n * num_bytes)
        )


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Seconds an element of the computation around an exchange.

    Attributes:
        fp32: Into one buffer, division, and out again.
        fp16: The same, to float16 and back.
        scalers: `ternary_scalers`.
        encode: `ternary_encode`.
        decode: `ternary_decode`.
        add: Adds one worker's trits: for each worker and element after
            allgather, for each element of the shard of each worker (together:
            once an element) in alltoall.
    """

    fp32: float = 0.0
    fp16: float = 0.0
    scalers: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    add: float = 0.0

    def seconds(self, exchange: str, elements: int, num_workers: int) -> float:
        """Of one exchange."""
        if exchange in FLOAT_EXCHANGES:
            return getattr(self, exchange) * elements
        adds = {"allreduce": 0, "allgather": num_workers, "alltoall": 1}
        each = self.scalers + self.encode + self.decode
        return (each + adds[exchange] * self.add) * elements


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of one step.

    Attributes:
        compute_s: Forward, backward and update: t_comp.
        kernels_s: Of t_comm, computation around the collectives.
        transfer_s: Of t_comm, the collectives.
        hidden_s: What of kernels_s happens during transfer_s.
    """

    compute_s: float
    kernels_s: float
    transfer_s: float
    hidden_s: float = 0.0

    @property
    def exchange_s(self) -> float:
        """t_comm."""
        return self.kernels_s + self.transfer_s - self.hidden_s

    @property
    def total_s(self) -> float:
        """t_step."""
        return self.compute_s + self.exchange_s


def digit_bytes(elements: int, num_workers: int) -> float:
    """Bytes of digits of base 2N + 1 in int64 words.

    >>> digit_bytes(2700, 2)
    800.0
    """
    return 8.0 * elements / custom_ops.digits_per_word(num_workers)


def trit_bytes(elements: int) -> float:
    """Bytes of five trits a byte.

    >>> trit_bytes(500)
    100.0
    """
    return elements / 5.0


def payload_time(exchange: str, elements: int, cluster: Cluster) -> float:
    """Seconds of the collectives that move gradients, of 2 or more workers.

    Args:
        exchange: One of `EXCHANGES`.
        elements: Of all gradients, or of one part of them.
        cluster: Workers and channels.
    """
    checks.choice("exchange", exchange, EXCHANGES)
    n = cluster.num_workers
    if exchange in FLOAT_EXCHANGES:
        size = {"fp32": 4.0, "fp16": 2.0}[exchange]
        return cluster.allreduce_s(size * elements)
    digits, trits = digit_bytes(elements, n), trit_bytes(elements)
    if exchange == "allreduce":
        return cluster.allreduce_s(digits)
    if exchange == "allgather":
        return cluster.allgather_s(trits)
    return cluster.alltoall_s(trits) + cluster.allgather_s(digits / n)


def step_time(
    exchange: str,
    elements: int,
    num_tensors: int,
    cluster: Cluster,
    kernels: Kernels,
    compute_s: float = 0.0,
    parts: int | None = None,
) -> StepTime:
    """t_step of one worker.

    Args:
        exchange: One of `EXCHANGES`.
        elements: Of all gradients.
        num_tensors: Gradients, with one fp32 scaler each.
        cluster: Workers and channels.
        kernels: Seconds an element.
        compute_s: t_comp.
        parts: P, of ternary exchanges. None: `wire.best_parts`.
    """
    n = cluster.num_workers
    if n == 1:
        return StepTime(compute_s, 0.0, 0.0)
    if exchange in FLOAT_EXCHANGES:
        return StepTime(
            compute_s,
            kernels.seconds(exchange, elements, n),
            payload_time(exchange, elements, cluster),
        )
    kernels_s = kernels.seconds(exchange, elements, n)
    codec_s = kernels_s - kernels.scalers * elements
    parts = parts or wire.best_parts(codec_s, cluster.call_s)
    during = cluster
    if parts > 1 and cluster.busy_call_s is not None:
        during = dataclasses.replace(cluster, call_s=cluster.busy_call_s)
    payload_s = parts * payload_time(exchange, elements / parts, during)
    calls = parts * wire.EXCHANGES[exchange].collectives
    busy_s = cluster.busy_share * (payload_s - calls * during.call_s)
    pipelined_s = max(
        payload_s + codec_s / parts, codec_s + busy_s + payload_s / parts
    )
    return StepTime(
        compute_s,
        kernels_s,
        cluster.allreduce_s(4.0 * num_tensors) + payload_s,
        codec_s + payload_s - pipelined_s,
    )


def best_ternary(
    elements: int, num_tensors: int, cluster: Cluster, kernels: Kernels
) -> str:
    """The ternary exchange of least time."""

    def seconds(exchange):
        return step_time(
            exchange, elements, num_tensors, cluster, kernels
        ).total_s

    return min(TERNARY_EXCHANGES, key=seconds)
