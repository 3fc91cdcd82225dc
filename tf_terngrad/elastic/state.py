"""What training goes on from when workers come and go."""

from __future__ import annotations

import copy

import keras
import tensorflow as tf

from tf_terngrad import agreement, checks, collectives, replica
from tf_terngrad.callbacks import average_statistics


class WorkersChanged(Exception):  # noqa: N818  not an error
    """Workers are to join or to leave: `State.commit` leaves training by it."""


class State:
    """Weights, optimizer, random streams and position of a training.

    `commit` keeps a copy of them in memory; after a loss of workers all go on
    from the last one. Worker by worker:

    - weights, optimizer variables (with the counter of exchanges, which keys
      the random bits of ternarizing), `variables` and values: the same on all,
      also on those that join;
    - moving statistics: each worker's own; those that join take them over;
    - seed generators, sums of micro-steps and what clipping removed
      (`ErrorFeedback`): each worker's own; those that join begin with theirs.
      What a lost worker had of them is lost.

    Args:
        model: Built Keras model.
        optimizer: Its optimizer; built here if need be. None: the one it is
            compiled with.
        variables: Others that are the same on all workers, such as the `step`
            of a compression that a DistributedGradientTape uses.
        **values: Picklable values, the same on all workers; they become
            attributes.

    Attributes:
        epoch: Int, epochs done. A value like the others.
        examples: Int, examples of this epoch that all workers together have
            trained on. A value like the others.

    Raises:
        ValueError: The model is not built or has no optimizer; a value has the
            name of something else.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> state = State(model, losses=[])
    >>> state.losses.append(0.5)
    >>> state.restore()
    >>> state.epoch, state.examples, state.losses
    (0, 0, [])
    """

    def __init__(self, model, optimizer=None, variables=(), **values):
        if not model.built:
            raise ValueError(
                "Invalid value for argument model. Expected a built model: "
                "begin it with keras.Input, or call model.build(input_shape). "
                f"Received: model={model!r}"
            )
        if optimizer is None:
            optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(
                "Invalid value for argument optimizer. Expected a Keras "
                "optimizer, or a compiled model. Received: optimizer=None"
            )
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        values = {"epoch": 0, "examples": 0} | values
        for name in values:
            if hasattr(type(self), name) or name in ("model", "optimizer"):
                raise ValueError(
                    f"Invalid name of a value. Expected another one than "
                    f"{name!r}, which State uses itself."
                )
        self.model = model
        self.optimizer = optimizer
        self._variables = list(variables)
        self._names = list(values)
        self._commits = 0
        self._noticed = False
        for name, value in values.items():
            setattr(self, name, value)
        self._save()

    def commit(self) -> None:
        """Keeps a copy; all workers call it after the same step.

        Raises:
            WorkersChanged: On every worker, if workers are to join or leave.
        """
        self._save()
        self._commits += 1
        noticed = tf.constant([int(self._noticed)], tf.int32)
        # The launcher tells one worker only.
        workers = collectives.Workers()
        if workers.max(noticed, "elastic.noticed")[0]:
            raise WorkersChanged

    def restore(self) -> None:
        """Goes back to the last commit, or to the start."""
        _assign(self._shared(), self._saved["shared"])
        _assign(self._statistics(), self._saved["statistics"])
        _assign(self._own(), self._saved["own"])
        self._set_values(self._saved["values"])

    def sync(self) -> None:
        """Takes over the state of a worker with the most commits.

        Raises:
            RuntimeError: On every worker, if they do not train the same model
                (`check_agreement`).
        """
        # A rate that has been set since the start is taken over, as weights.
        facts = agreement.facts_of(
            self.model, None, self.optimizer, with_rate=False
        )
        agreement.check_agreement(facts)
        commits = collectives.allgather_object(
            self._commits, name="elastic.commits"
        )
        root = commits.index(max(commits))
        saved = collectives.broadcast_object(
            {k: self._saved[k] for k in ("shared", "statistics", "values")},
            root=root,
            name="elastic.state",
        )
        _assign(self._shared(), saved["shared"])
        if self._commits < commits[root] or not commits[root]:
            _assign(self._statistics(), saved["statistics"])
        self._set_values(saved["values"])
        self._commits = commits[root]
        self._save()

    def reset(self) -> None:
        """Drops what was traced for another number of workers."""
        self.model.train_function = None
        self.model.test_function = None
        self.model.predict_function = None

    def remaining(
        self, dataset: tf.data.Dataset, batch_size: int
    ) -> tf.data.Dataset:
        """This worker's batches of what is left of the epoch.

        All workers get the same number of batches, at least one, and together
        each example once, but for fewer than `batch_size` times the number of
        workers at the end. If no more than those are left, they get the last
        batches once more, as Keras makes half a step (it counts iterations) of
        a dataset without any.

        Args:
            dataset: Single examples, of known number, in an order that is the
                same on all workers and each time that it is asked for in this
                epoch: shuffle by a seed made of `epoch`.
            batch_size: Examples of a worker's batch, >= 1.

        Returns:
            Batches `[batch_size, ...]`.

        Raises:
            ValueError: The number of examples is not known, or too small for
                a batch of each worker.
        """
        checks.integer("batch_size", batch_size, 1)
        total = int(dataset.cardinality())
        if total < 0:
            raise ValueError(
                "Invalid value for argument dataset. Expected a known number "
                "of examples: tf.data.experimental.assert_cardinality tells "
                "it. Received: dataset.cardinality() == "
                f"{'INFINITE' if total == -1 else 'UNKNOWN'}"
            )
        size, rank = collectives.size(), collectives.rank()
        step = size * batch_size  # examples of all workers
        if total < step:
            raise ValueError(
                "Invalid value for argument dataset. Expected at least "
                f"batch_size * tg.size() == {step} examples. "
                f"Received: dataset.cardinality() == {total}"
            )
        first = min(self.examples, total - step)
        left = (total - first) // step * step
        mine = dataset.skip(first).take(left).shard(size, rank)
        return mine.batch(batch_size, drop_remainder=True)

    def on_hosts_updated(self, timestamp, result) -> None:
        """The launcher found other hosts; called in a thread of Horovod's."""
        del timestamp, result
        self._noticed = True

    def forget_notices(self) -> None:
        """What was noticed up to now is being dealt with."""
        self._noticed = False

    def _shared(self) -> list:
        return (
            self.model.trainable_variables
            + replica.optimizer_variables(self.optimizer)
            + self._variables
        )

    def _statistics(self) -> list:
        return average_statistics.statistics_of(self.model)

    def _own(self) -> list:
        statistics = {id(v) for v in self._statistics()}
        return [
            v
            for v in self.model.non_trainable_variables
            if id(v) not in statistics
        ] + replica.worker_variables(self.optimizer)

    def _save(self) -> None:
        self._saved = {
            "shared": _values(self._shared()),
            "statistics": _values(self._statistics()),
            "own": _values(self._own()),
            "values": copy.deepcopy({n: getattr(self, n) for n in self._names}),
        }

    def _set_values(self, values) -> None:
        for name, value in copy.deepcopy(values).items():
            setattr(self, name, value)


def _values(variables) -> list:
    """Copies, in NumPy."""
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def _assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
