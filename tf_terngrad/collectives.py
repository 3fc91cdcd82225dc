"""The workers and what they say to each other: the only caller of Horovod.

Without Horovod, or outside a launcher, there is one worker and every
collective returns its input.

Horovod's ops are not stateful, so TensorFlow folds one with a constant input
and prunes one whose result is unused, on that rank alone: the others then wait
for ever. Every collective here takes an input that cannot be folded; callers
see to it that the result is used, or that `Workers.zero` is (a control
dependency is not enough: TensorFlow drops those on ops without state). Names
are fixed, because Horovod pairs collectives of different ranks by name and
ranks may trace differently.
"""

import contextlib
import copy
import os
import sys

import tensorflow as tf

# Environment variables that a launcher sets for each worker.
_LAUNCHER_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def _launched() -> bool:
    return any(name in os.environ for name in _LAUNCHER_VARIABLES)


def _horovod():
    """horovod.tensorflow, initialized; None where this is the only worker."""
    if not _launched() and "horovod.tensorflow" not in sys.modules:
        return None
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise ImportError(
            "This process was started as one of several workers, but Horovod "
            "cannot be imported. `make train` and `make test` build it; see "
            f"README. ({error})"
        ) from error
    if not hvd.is_initialized():
        if not _launched():
            return None
        hvd.init()
    return hvd


def init() -> None:
    """Joins the other workers, if this process was started as one of several.

    May be called more than once. The other functions here call it themselves.

    Raises:
        ImportError: A launcher started this process, but Horovod is missing.
    """
    _horovod()


def rank() -> int:
    """Number of this worker, in [0, size())."""
    hvd = _horovod()
    return hvd.rank() if hvd else 0


def size() -> int:
    """Number of workers."""
    hvd = _horovod()
    return hvd.size() if hvd else 1


def local_rank() -> int:
    """Number of this worker among those on its host."""
    hvd = _horovod()
    return hvd.local_rank() if hvd else 0


def local_size() -> int:
    """Number of workers on this host."""
    hvd = _horovod()
    return hvd.local_size() if hvd else 1


def allgather_object(value, name: str = "objects") -> list:
    """Every worker's value, in order of rank. Any picklable object."""
    hvd = _horovod()
    if hvd is None or hvd.size() == 1:
        return [value]
    return hvd.allgather_object(value, name=f"HorovodAllgather.tg.{name}")


def broadcast_object(value, root: int = 0, name: str = "object"):
    """The root worker's value, on every worker."""
    hvd = _horovod()
    if hvd is None or hvd.size() == 1:
        return value
    return hvd.broadcast_object(
        value, root_rank=root, name=f"HorovodBroadcast.tg.{name}"
    )


def barrier() -> None:
    """Returns when every worker has called it."""
    allgather_object(None, name="barrier")


def broadcast_variables(variables: list, root: int = 0) -> None:
    """Assigns the root worker's values to `tf.Variable`s, outside tf.function.

    Args:
        variables: The same list (order, shapes, dtypes) on every worker.
        root: Rank whose values are taken.
    """
    hvd = _horovod()
    if hvd is None or hvd.size() == 1:
        return
    hvd.broadcast_variables(variables, root_rank=root)


def is_elastic() -> bool:
    """Whether the launcher goes on when a worker is lost or added."""
    return _launched() and os.environ.get("HOROVOD_ELASTIC") == "1"


def says_workers_lost(error: BaseException) -> bool:
    """Whether an error of TensorFlow's says that another worker is gone.

    By Horovod's name, which is in those of all its ops: Horovod's own wrapper
    knows some ops only, and takes errors of the others for the end of training.
    Horovod refuses what workers disagree on with other types of errors.
    """
    while error is not None:
        if isinstance(error, tf.errors.UnknownError):
            return "Horovod" in str(error)
        error = error.__cause__
    return False


def rejoin() -> None:
    """Leaves the other workers and joins those that there are now.

    Rank and size may be others afterwards; process sets are gone.

    Raises:
        RuntimeError: The launcher has no place for this worker any more, or
            another one was lost meanwhile.
    """
    hvd = _horovod()
    if hvd is None:
        return
    hvd.shutdown()
    try:
        hvd.init()
    except ValueError as error:
        raise RuntimeError(
            "This worker cannot join the others again: its host was taken "
            "away, or another worker was lost at the same time. What Horovod "
            "says stands above."
        ) from error


@contextlib.contextmanager
def notices(listener):
    """Tells a listener when the launcher finds other hosts than before.

    Args:
        listener: Its `on_hosts_updated(timestamp, result)` is called, in
            another thread, on one of the workers.
    """
    if not is_elastic():
        yield
        return
    from horovod.common.elastic import notification_manager

    notification_manager.init()
    notification_manager.register_listener(listener)
    try:
        yield
    finally:
        notification_manager.remove_listener(listener)


class Workers:
    """The workers that exchange gradients: all of them, or a process set.

    Attributes:
        size: Number of workers, known when a function is traced.
        rank: Of this worker among them; None if it is not one of them.
    """

    def __init__(self, process_set=None):
        self._hvd = _horovod()
        self._results = []  # one tensor of each collective
        if self._hvd is None:
            if process_set is not None:
                raise ValueError(
                    "Invalid value for argument process_set. Expected None: "
                    "this process is the only worker. Received: "
                    f"process_set={process_set}"
                )
            self.size, self.rank = 1, 0
            return
        if process_set is None:
            process_set = self._hvd.global_process_set
        self._process_set = process_set
        self.size = process_set.size()
        self.rank = process_set.rank() if process_set.included() else None

    def max(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """Elementwise maximum over workers. No NaN: Gloo may lose it."""
        return self._allreduce(tensor, name, "Max")

    def sum(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """Elementwise sum over workers; integers wrap."""
        return self._allreduce(tensor, name, "Sum")

    def sum_all(self, tensors: list, name: str) -> list:
        """Sums of several tensors of one dtype, fused by Horovod."""
        if self.size == 1 or not tensors:
            return list(tensors)
        totals = self._hvd.grouped_allreduce(
            [_unfoldable(t) for t in tensors],
            op=self._hvd.Sum,
            name=f"HorovodAllreduce.tg.{name}",
            process_set=self._process_set,
            ignore_name_scope=True,
        )
        self._results.append(totals[0])
        return [
            tf.reshape(total, tf.shape(tensor))
            for total, tensor in zip(totals, tensors, strict=True)
        ]

    def gather(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """All workers' vectors, one after the other."""
        if self.size == 1:
            return tensor
        gathered = self._hvd.allgather(
            _unfoldable(tensor),
            name=f"HorovodAllgather.tg.{name}",
            process_set=self._process_set,
            ignore_name_scope=True,
        )
        self._results.append(gathered)
        return tf.reshape(gathered, [-1])

    def all_to_all(self, tensor: tf.Tensor, name: str) -> tf.Tensor:
        """Part i of a vector to worker i; returns all parts sent here, in turn.

        Parts are of one length: the vector has `size * length` entries.
        """
        if self.size == 1:
            return tensor
        received = self._hvd.alltoall(
            _unfoldable(tensor),
            name=f"HorovodAlltoall.tg.{name}",
            process_set=self._process_set,
            ignore_name_scope=True,
        )
        self._results.append(received)
        return tf.reshape(received, [-1])

    def branch(self) -> "Workers":
        """The same workers, for use inside a branch of `tf.cond`."""
        branch = copy.copy(self)
        branch._results = []
        return branch

    def join(self, zero: tf.Tensor) -> None:
        """Takes over what a branch did; `zero` is that of the branch."""
        self._results.append(zero)

    def zero(self) -> tf.Tensor:
        """int64 scalar 0, known only when all collectives so far are done."""
        heads = [
            tf.cast(tf.reshape(result, [-1])[:1], tf.float64)
            for result in self._results
        ]
        if not heads:
            return tf.constant(0, tf.int64)
        # No number is both; nothing in TensorFlow knows that.
        head = tf.concat(heads, axis=0)
        never = tf.math.is_nan(head) & tf.math.is_finite(head)
        return tf.math.count_nonzero(never, dtype=tf.int64)

    def _allreduce(self, tensor, name, op):
        if self.size == 1:
            return tensor
        total = self._hvd.allreduce(
            _unfoldable(tensor),
            op=getattr(self._hvd, op),
            name=f"HorovodAllreduce.tg.{name}",
            process_set=self._process_set,
            ignore_name_scope=True,
        )
        self._results.append(total)
        return tf.reshape(total, tf.shape(tensor))


def _unfoldable(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor as `[size, 1]`, never taken for a constant by TensorFlow.

    It folds every identity of a constant, PlaceholderWithDefault too. Here the
    shape comes from an operation with state, and both dimensions are unknown:
    one alone TensorFlow would infer from the other.
    """
    if tf.executing_eagerly():
        return tf.reshape(tensor, [-1, 1])
    zero = tf.raw_ops.RandomUniformInt(
        shape=tf.constant([2]),
        minval=tf.constant(0, tf.int64),
        maxval=tf.constant(1, tf.int64),
        seed=1,
        seed2=1,
    )
    return tf.reshape(tensor, [tf.size(tensor, tf.int64), 1] + zero)
