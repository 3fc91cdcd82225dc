"""A Keras optimizer that exchanges gradients before it applies them."""

import math

import keras
import tensorflow as tf
from absl import logging
from tensorflow.python.ops import control_flow_util

from tf_terngrad import checks, collectives, numbering
from tf_terngrad.compression import Compression
from tf_terngrad.error_feedback import ErrorFeedback
from tf_terngrad.exchange import components, exchange, path
from tf_terngrad.local_workers import LocalWorkers
from tf_terngrad.statistics import ExchangeStatistics

_XLA_MESSAGE = (
    "DistributedOptimizer cannot run under XLA. Pass jit_compile=False to "
    "model.compile (Keras' default, jit_compile='auto', turns XLA on where "
    "there is a GPU): neither Horovod's ops nor the ternary ops have XLA "
    "kernels."
)
_NESTING_MESSAGE = (
    "LossScaleOptimizer must stand inside DistributedOptimizer, not around "
    "it: otherwise a worker with a NaN skips its collectives and the others "
    "wait for ever. Use "
    "tg.DistributedOptimizer(keras.optimizers.LossScaleOptimizer(optimizer), "
    "...) and pass auto_scale_loss=False to model.compile."
)


@keras.saving.register_keras_serializable(package="tf_terngrad")
class DistributedOptimizer(keras.optimizers.Optimizer):
    """Averages gradients over all workers, then lets an optimizer apply them.

    Wraps any Keras 3 optimizer; `model.fit` and custom loops need no other
    change. Every worker must start from the same weights (see
    `callbacks.BroadcastVariables`) and make the same number of steps.

    Learning rate, iterations, loss scale and EMA are those of the wrapped
    optimizer; clipnorm, global_clipnorm and clipvalue act on the averaged
    gradient. Gradient accumulation of the wrapped optimizer moves here: sums
    stay local, and every k-th step is exchanged and applied. A learning rate
    schedule then counts applied steps.

    With `TernGrad(error_feedback=True)` the attribute `feedback` holds what
    clipping removed: this worker's own, so not among `variables`
    (`tf_terngrad.checkpoint` saves it).

    Args:
        optimizer: Keras optimizer. A LossScaleOptimizer goes inside.
        compression: `TernGrad`, `FP16` or `NoCompression`.
        groups: Int >= 1: the exchange is cut into that many, so that the first
            ones overlap the rest of the backward pass.
        gradient_accumulation_steps: Int >= 2, or None.
        process_set: Horovod process set; None: all workers. Not saved with
            the model.
        workers: `LocalWorkers`: this process stands for that many. Before
            `model.fit` call their `attach(model)`. Not with a process set.
        name: String.

    Example:
        optimizer = tg.DistributedOptimizer(
            keras.optimizers.SGD(0.01, momentum=0.9), tg.TernGrad())
        model.compile(optimizer, loss, jit_compile=False)
        model.fit(dataset, callbacks=[tg.callbacks.BroadcastVariables()])
    """

    def __init__(
        self,
        optimizer,
        compression,
        groups=1,
        gradient_accumulation_steps=None,
        process_set=None,
        workers=None,
        name=None,
    ):
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "Invalid type for argument optimizer. Expected a Keras 3 "
                "optimizer (an instance of keras.optimizers.Optimizer). "
                f"Received: optimizer={optimizer!r}"
            )
        if not isinstance(compression, Compression):
            raise TypeError(
                "Invalid type for argument compression. Expected "
                "tg.NoCompression(), tg.FP16() or tg.TernGrad(...). Received: "
                f"compression={compression!r}"
            )
        checks.integer("groups", groups, 1)
        if gradient_accumulation_steps is not None:
            checks.integer(
                "gradient_accumulation_steps", gradient_accumulation_steps, 2
            )
        if workers is not None:
            _check_local_workers(workers, process_set)
        if compression.error_feedback and _scales_loss(optimizer):
            raise ValueError(
                "Invalid value for argument compression. Expected "
                "error_feedback=False with LossScaleOptimizer, which changes "
                "the scale of gradients between steps. Received: "
                "error_feedback=True"
            )
        super().__init__(learning_rate=0.0, name=name)
        self.compression = compression
        self.groups = groups
        self.process_set = process_set
        self.workers = workers
        # Numbered at construction: the same on all workers, whatever they
        # trace.
        self._exchange_name = f"optimizer{numbering.take('optimizer')}"
        self.statistics = None
        self.feedback = None
        self._accumulators = []
        moved = _take_accumulation(optimizer)
        if moved and gradient_accumulation_steps not in (None, moved):
            raise ValueError(
                "Invalid value for argument gradient_accumulation_steps. "
                f"Expected None or {moved}, which the optimizer has. "
                "Received: gradient_accumulation_steps="
                f"{gradient_accumulation_steps!r}"
            )
        self._accumulation_steps = gradient_accumulation_steps or moved
        self.inner_optimizer = optimizer
        if self.num_workers == 1:
            logging.info(
                "DistributedOptimizer: one worker: gradients are compressed "
                "as for many, and sent to nobody."
            )

    @property
    def num_workers(self) -> int:
        """Number of workers it averages over, virtual ones too."""
        return collectives.Workers(self.process_set).size * self._num_local

    @property
    def _num_local(self) -> int:
        return self.workers.num_workers if self.workers else 1

    def build(self, var_list):
        """Creates the variables of this and the wrapped optimizer."""
        if self.built:
            return
        self.compression.check([path(v) for v in var_list])
        # Not super().build: it would make averages and accumulators of its own
        # for the settings of the wrapped optimizer.
        for i, variable in enumerate(var_list):
            self._trainable_variables_indices[self._var_key(variable)] = i
        self._trainable_variables.extend(var_list)
        self.exchange_step = self.add_variable(
            shape=(), dtype="int64", name="exchange_step"
        )
        if self._accumulation_steps:
            self.accumulated_steps = self.add_variable(
                shape=(), dtype="int64", name="accumulated_steps"
            )
            self._accumulators = [
                [
                    self.add_variable_from_reference(v, name="accumulator")
                    for v in var_list
                ]
                for _ in range(self._num_local)
            ]
        self.statistics = ExchangeStatistics(len(var_list))
        if self.compression.error_feedback:
            self.feedback = ErrorFeedback(var_list, self._num_local)
        self.inner_optimizer.build(var_list)
        self.built = True

    def apply_gradients(self, grads_and_vars):
        """As `apply`, for pairs; returns the number of applied steps."""
        grads, variables = zip(*grads_and_vars, strict=True)
        self.apply(grads, variables)
        return self.iterations

    @tf.autograph.experimental.do_not_convert
    def apply(self, grads, trainable_variables=None):
        """Exchanges `grads` and applies the averages.

        Args:
            grads: One gradient a variable. With `workers`: one such list for
                each of them.
            trainable_variables: Defaults to those it was built with.
        """
        if control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        ):
            raise ValueError(_XLA_MESSAGE)
        local = self._of_local_workers(list(grads))
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(variables)
        if self._accumulation_steps:
            self._accumulate_and_apply(local, variables)
        else:
            self._exchange_and_apply(local, variables)

    def _of_local_workers(self, grads):
        """`[local workers][variables]`."""
        if self.workers is None:
            return [grads]
        lists = [g for g in grads if isinstance(g, list | tuple)]
        if not len(lists) == len(grads) == self.workers.num_workers:
            raise ValueError(
                "Invalid value for argument grads. Expected one list for each "
                f"of {self.workers.num_workers} local workers: call "
                "workers.attach(model) before model.fit, or pass what "
                f"workers.gradients returns. Received: {len(lists)} lists, "
                f"{len(grads) - len(lists)} other objects"
            )
        return [list(g) for g in lists]

    def _exchange_and_apply(self, local, variables):
        # Such variables are statistics, overwritten by their "gradient".
        exchanged = [
            i
            for i, v in enumerate(variables)
            if not self._overwrite_variable_with_gradient(v)
        ]
        if self.workers is not None and len(exchanged) < len(variables):
            raise ValueError(
                "DistributedOptimizer with local workers cannot train "
                "variables that are overwritten by their gradient (float8). "
                "Use real workers."
            )
        averages = list(local[0])
        size = -(-len(exchanged) // self.groups)
        for group in range(self.groups):
            members = exchanged[group * size : (group + 1) * size]
            averaged = self._exchange_group(members, local, variables, group)
            for i, gradient in zip(members, averaged, strict=True):
                averages[i] = gradient
        with tf.control_dependencies(components(averages)):
            self.exchange_step.assign_add(1)
        self.inner_optimizer.apply(averages, variables)

    def _exchange_group(self, members, local, variables, group):
        """Averages the gradients at the positions `members`."""
        # All positions are passed, so that ids and random streams do not
        # depend on the grouping.
        chosen = set(members)
        gradients = [
            [g if i in chosen else None for i, g in enumerate(grads)]
            for grads in local
        ]
        averages = exchange(
            gradients if self.workers else gradients[0],
            variables,
            self.compression,
            step=tf.identity(self.exchange_step.value),
            process_set=self.process_set,
            workers=self.workers,
            name=f"{self._exchange_name}.{group}",
            statistics=self.statistics,
            feedback=self.feedback,
        )
        return [averages[i] for i in members]

    def _accumulate_and_apply(self, local, variables):
        positions = [self._get_variable_index(v) for v in variables]
        overwritten = [
            self._overwrite_variable_with_gradient(v) for v in variables
        ]
        accumulators = [
            [of_worker[i].value for i in positions]
            for of_worker in self._accumulators
        ]
        for sums, grads in zip(accumulators, local, strict=True):
            for i, (accumulator, gradient) in enumerate(
                zip(sums, grads, strict=True)
            ):
                if overwritten[i]:
                    if gradient is not None:
                        variables[i].assign(gradient)
                elif isinstance(gradient, tf.IndexedSlices):
                    accumulator.scatter_add(gradient)
                elif gradient is not None:
                    accumulator.assign_add(gradient)
        self.accumulated_steps.assign_add(1)

        def apply():
            averages = [
                [
                    g if g is None or o else a / self._accumulation_steps
                    for a, g, o in zip(sums, grads, overwritten, strict=True)
                ]
                for sums, grads in zip(accumulators, local, strict=True)
            ]
            self._exchange_and_apply(averages, variables)
            for accumulator in tf.nest.flatten(accumulators):
                accumulator.assign(tf.zeros_like(accumulator))

        # The one branch around collectives: the counter is the same on every
        # worker.
        tf.cond(
            tf.equal(self.accumulated_steps % self._accumulation_steps, 0),
            apply,
            lambda: None,
        )

    def bits_per_element(self) -> float:
        """Bits a worker sends for one exchange, over all elements."""
        sizes = [math.prod(v.shape) for v in self._trainable_variables]
        paths = [path(v) for v in self._trainable_variables]
        bits = self.compression.bits_sent(sizes, paths, self.num_workers)
        return bits / max(1, sum(sizes))

    @property
    def worker_variables(self):
        """What differs between workers: sums of micro-steps, residuals."""
        residuals = self.feedback.residuals if self.feedback else []
        return [v for part in (*self._accumulators, *residuals) for v in part]

    @property
    def variables(self):
        """Own variables, then those of the wrapped optimizer."""
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        """Of the wrapped optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self):
        """Of the wrapped optimizer: applied steps."""
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        """Lets the wrapped optimizer scale the loss."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Lets the wrapped optimizer write its averaged weights."""
        self.inner_optimizer.finalize_variable_values(var_list)

    @property
    def use_ema(self):
        """Of the wrapped optimizer."""
        return self._of_inner("use_ema", False)

    @use_ema.setter
    def use_ema(self, value):
        self._set_inner("use_ema", value)

    @property
    def gradient_accumulation_steps(self):
        """Micro-steps of one exchange, or None."""
        return self.__dict__.get("_accumulation_steps")

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, value):
        if self._is_complete():
            raise AttributeError(
                "Set gradient_accumulation_steps when DistributedOptimizer is "
                "made."
            )

    @property
    def loss_scale_factor(self):
        """Of the wrapped optimizer; 1 where that has none.

        Not None: Keras would not call the setter with what is there already.
        """
        if not self._is_complete():
            return None
        factor = self.inner_optimizer.loss_scale_factor
        return 1.0 if factor is None else factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value):
        # LossScaleOptimizer sets None on what it wraps.
        if value is None and self._is_complete():
            raise ValueError(_NESTING_MESSAGE)
        self._set_inner("loss_scale_factor", value)

    def _is_complete(self):
        """False inside Keras' own constructor."""
        return "inner_optimizer" in self.__dict__

    def _of_inner(self, name, default):
        return (
            getattr(self.inner_optimizer, name)
            if self._is_complete()
            else default
        )

    def _set_inner(self, name, value):
        if self._is_complete():
            setattr(self.inner_optimizer, name, value)

    def get_config(self):
        """See `keras.optimizers.Optimizer.get_config`."""
        return {
            "optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "compression": keras.saving.serialize_keras_object(
                self.compression
            ),
            "groups": self.groups,
            "gradient_accumulation_steps": self._accumulation_steps,
            "workers": self.workers and self.workers.num_workers,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Inverse of `get_config`."""
        config = dict(config)
        for key in ("optimizer", "compression"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        if config.get("workers"):
            config["workers"] = LocalWorkers(config["workers"])
        return cls(**config)


def _check_local_workers(workers, process_set):
    if not isinstance(workers, LocalWorkers):
        raise TypeError(
            "Invalid type for argument workers. Expected tg.LocalWorkers(n) "
            f"or None. Received: workers={workers!r}"
        )
    if process_set is not None:
        raise ValueError(
            "Invalid value for argument workers. Expected None where there is "
            f"a process_set. Received: workers={workers!r}"
        )


def _scales_loss(optimizer) -> bool:
    while optimizer is not None:
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return True
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return False


def _take_accumulation(optimizer):
    """Moves gradient accumulation out of an optimizer and those within it."""
    steps = None
    while optimizer is not None:
        if optimizer.gradient_accumulation_steps:
            steps = optimizer.gradient_accumulation_steps
            optimizer.gradient_accumulation_steps = None
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return steps
