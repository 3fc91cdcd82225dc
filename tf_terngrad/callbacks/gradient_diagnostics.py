"""What clipping and ternarizing do to the gradients, while a model trains."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_terngrad import checks, collectives
from tf_terngrad.diagnostics import records, summaries
from tf_terngrad.exchange import path
from tf_terngrad.local_workers import LocalWorkers
from tf_terngrad.terngrad import TernGrad


class GradientDiagnostics(keras.callbacks.Callback):
    """Records the gradients of virtual workers before and after ternarizing.

    Before the first step and after every `every` steps, worker 0 computes the
    gradients of `num_workers` virtual workers, each on its own fixed batch,
    clips and ternarizes them as the optimizer's TernGrad does (`tg.TernGrad()`
    if it has another compression) and writes, for each variable: histograms of
    float, clipped, ternary and averaged ternary gradients, zero fraction,
    scaler, sigma, what clipping does to length and direction, and what the
    variable adds to the two gradient bounds of the convergence proof,
    `E||g||^2` and `E(||g||_inf ||g||_1)`. Variables that travel in float are
    measured as if they did not. See `tf_terngrad.diagnostics.records.make` for
    the format, and `python -m tf_terngrad.diagnostics` for the pictures.

    Training goes on as if this were not there: moving statistics, metrics and
    seed generators keep their values (dropout has random streams of its own
    here), nothing is sent, and other workers do nothing.

    Args:
        directory: Folder of the records, one file a recorded step. Records of
            steps after the one that training goes on from are removed.
        batches: Iterable of `(x, y)` or `(x, y, sample_weight)`, such as a
            `tf.data.Dataset`. Its first `num_workers` batches, all of one
            size, are kept in memory.
        num_workers: N >= 1. Defaults to 2.
        every: Steps (batches of each worker) between records, >= 1. Defaults
            to 500.
        log_dir: Folder of TensorBoard summaries; None: none are written.
        first_step: Steps done before `fit`. None: the optimizer's iterations,
            which is the same unless gradients are accumulated.

    Raises:
        ValueError: There are fewer batches than virtual workers, or their
            shapes differ.

    Example:
        model.fit(dataset, callbacks=[tg.callbacks.GradientDiagnostics(
            "run/diagnostics", dataset, every=100, log_dir="run/logs")])

    Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication
    in Distributed Deep Learning", NIPS 2017, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        directory,
        batches,
        num_workers=2,
        every=500,
        log_dir=None,
        first_step=None,
    ):
        super().__init__()
        checks.integer("num_workers", num_workers, 1)
        checks.integer("every", every, 1)
        if first_step is not None:
            checks.integer("first_step", first_step, 0)
        self.directory = pathlib.Path(directory)
        self.num_workers = num_workers
        self.every = every
        self.log_dir = log_dir
        self.first_step = first_step
        self._batch = _join_batches(batches, num_workers)
        self._writer = self._gradients = None
        self._step = self._steps_before_epoch = 0

    def on_train_begin(self, logs=None):
        """Records, if a record is due at the step that `fit` begins with."""
        if collectives.rank() != 0:
            return
        self._step = (
            int(self.model.optimizer.iterations)
            if self.first_step is None
            else self.first_step
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        records.remove_after(self.directory, self._step)
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._gradients = tf.function(self._compute, autograph=False)
        if self._step % self.every == 0:
            self._record()

    def on_epoch_begin(self, epoch, logs=None):
        """Steps count on."""
        self._steps_before_epoch = self._step

    def on_train_batch_end(self, batch, logs=None):
        """Records, if a record is due."""
        if self._gradients is None:
            return
        before = self._step
        # With steps_per_execution, several steps end at once.
        self._step = self._steps_before_epoch + batch + 1
        if self._step // self.every > before // self.every:
            self._record()

    def on_train_end(self, logs=None):
        """Closes the summaries."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._gradients = None

    def _record(self):
        compression = getattr(self.model.optimizer, "compression", None)
        if not isinstance(compression, TernGrad):
            compression = TernGrad()
        gradients = self._gradients(self._batch, self._seeds())
        variables = self.model.trainable_variables
        ids = [
            i
            for i, g in enumerate(gradients[0])
            if g is not None and g.shape.num_elements()
        ]
        if not ids:
            return
        record = records.make(
            [[local[i].numpy() for i in ids] for local in gradients],
            [
                path(variables[i]).removeprefix(f"{self.model.name}/")
                for i in ids
            ],
            ids,
            compression,
            self._step,
        )
        records.write(self.directory, record)
        if self._writer is not None:
            summaries.write(self._writer, record)

    def _seeds(self) -> np.ndarray:
        """States of seed generators, uint32 `[workers, generators, 2]`."""
        generators = _seed_generators(self.model)
        entropy = np.random.SeedSequence((self._step, len(generators)))
        states = entropy.generate_state(self.num_workers * len(generators))
        states = states.reshape([self.num_workers, len(generators)])
        return np.stack([states, np.zeros_like(states)], axis=-1)

    def _compute(self, batch, seeds):
        gradients = LocalWorkers(self.num_workers).gradients(
            _loss, self.model, (batch, seeds)
        )
        return [[_dense(g) for g in local] for local in gradients]


def _loss(model, part):
    """The compiled loss as in training; no variable of the model changes."""
    batch, seeds = part
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    own_streams = [
        (generator, tf.cast(state, generator.dtype))
        for generator, state in zip(
            _seed_generators(model),
            tf.unstack(seeds[0]) if seeds.shape[1] else [],
            strict=True,
        )
    ]
    # Keras looks up regularized weights in the scope.
    weights = [(v, v.value) for v in model.trainable_variables]
    with keras.StatelessScope(own_streams + weights, collect_losses=True):
        y_pred = model(x, training=True)
        return model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
        )


def _seed_generators(model) -> list:
    return [
        v
        for v in model.non_trainable_variables
        if v.path.split("/")[-1] == "seed_generator_state"
    ]


def _dense(gradient):
    if gradient is None:
        return None
    gradient = tf.convert_to_tensor(gradient)
    # NumPy has neither bfloat16 nor quick float16; nothing is lost.
    wide = gradient.dtype in (tf.float32, tf.float64)
    return gradient if wide else tf.cast(gradient, tf.float32)


def _join_batches(batches, num_workers):
    """The first batches, one after the other."""
    parts = []
    for batch in batches:
        parts.append(tf.nest.map_structure(tf.convert_to_tensor, batch))
        if len(parts) == num_workers:
            break
    shapes = [[tuple(t.shape) for t in tf.nest.flatten(part)] for part in parts]
    if len(parts) < num_workers or any(s != shapes[0] for s in shapes):
        raise ValueError(
            f"Invalid value for argument batches. Expected {num_workers} "
            "batches of the same shapes, one for each virtual worker. "
            f"Received: {len(parts)} batches of shapes {shapes}"
        )
    return tf.nest.map_structure(lambda *t: tf.concat(t, axis=0), *parts)
