"""Which variables of an optimizer are the same on all workers."""


def worker_variables(optimizer) -> list:
    """What each worker has of its own: nothing but in DistributedOptimizer."""
    return list(getattr(optimizer, "worker_variables", []))


def optimizer_variables(optimizer) -> list:
    """The others: the same, to the bit, on all workers."""
    own = {id(v) for v in worker_variables(optimizer)}
    return [v for v in optimizer.variables if id(v) not in own]
