"""torch.distributed's Gloo allreduce, timed for benchmarks/exchange.py.

Runs in an environment with PyTorch and without TensorFlow; exchange.py starts
it (--torch_python). As DistributedDataParallel does by default, gradients
travel in buckets of 25 MiB, all of them started before the first is waited
for; they already lie in these buckets, so nothing is copied.
"""

import argparse
import json
import pathlib
import statistics
import time

import payloads
import torch
import torch.distributed as dist

_BUCKET = 25 * 2**20 // 4  # elements
_SCALE = 0.01


def _barrier():
    dist.all_reduce(torch.zeros(1))


def _exchange(buckets):
    for work in [dist.all_reduce(b, async_op=True) for b in buckets]:
        work.wait()
    for bucket in buckets:
        bucket /= dist.get_world_size()


def _make(elements, rank):
    flat = torch.empty(elements)
    flat.normal_(std=_SCALE, generator=torch.Generator().manual_seed(rank))
    return flat


def _check(buckets, size):
    """Raises RuntimeError unless the averages are those of all workers."""
    size = min(size, _BUCKET)
    expected = sum(
        _make(size, r).double() for r in range(dist.get_world_size())
    )
    expected /= dist.get_world_size()
    error = (buckets[0][:size] - expected).abs().max().item()
    if error > 1e-5 * _SCALE:
        raise RuntimeError(f"Expected the average. Received an error: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payload", required=True, choices=payloads.SHAPES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--max_rounds", type=int, default=50)
    parser.add_argument("--json", required=True, help="Milliseconds of rounds.")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    dist.init_process_group("gloo")
    elements = payloads.num_elements(flags.payload)
    buckets = list(_make(elements, dist.get_rank()).split(_BUCKET))
    # The generator fills a prefix alike only for one length.
    first = _make(len(buckets[0]), dist.get_rank())
    buckets[0].copy_(first)
    _barrier()
    start = time.perf_counter()
    _exchange(buckets)
    num_rounds = torch.tensor([time.perf_counter() - start])
    _check(buckets, len(buckets[0]))
    dist.all_reduce(num_rounds, op=dist.ReduceOp.MAX)
    each = num_rounds.item()
    rounds = max(3, min(flags.max_rounds, int(flags.seconds / each)))
    times = []
    for _ in range(rounds):
        _barrier()
        start = time.perf_counter()
        _exchange(buckets)
        times.append(1e3 * (time.perf_counter() - start))
    slowest = torch.tensor(times, dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        print(f"torch {torch.__version__}: {statistics.median(times):.2f} ms")
        pathlib.Path(flags.json).write_text(
            json.dumps({"torch": torch.__version__, "ms": slowest.tolist()})
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
