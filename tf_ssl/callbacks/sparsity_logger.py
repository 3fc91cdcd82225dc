"""Sparsity in the logs and in TensorBoard, with pictures."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.measure import pictures as pictures_lib
from tf_ssl.measure.sparsity import add_counts, count_model_zeros
from tf_ssl.structures import group_specs
from tf_ssl.structures.kernels import find_kernels
from tf_ssl.structures.structure import Structures

# What the progress bar and the history show, over all kernels.
_TOTALS = {
    "element": "zero_elements",
    "column": "zero_columns",
    "row": "zero_rows",
    "block": "zero_blocks",
}
_DEAD = "dead_units"


class SparsityLogger(keras.callbacks.Callback):
    """Adds to the logs what is zero, and draws it.

    The logs of each epoch, and so the progress bar and the history, get totals
    over all kernels of the model, as fractions in [0, 1]:

    - `zero_elements`, `zero_columns`, `zero_rows`: see `tf_ssl.sparsity`;
      `zero_blocks` where `block` is given;
    - `dead_units`: of all units of `structures`, where they are given.

    TensorBoard gets the same numbers for each kernel and structure
    (`sparsity/conv1/kernel/row`, `dead_units/conv1/filters`), and with
    `pictures` for each kernel its weight matrix with zeros white (`zeros/...`)
    and for convolutions the learned filter shapes (`filter_shapes/...`), as
    `tf_ssl.pictures` makes them.

    >>> import numpy as np
    >>> zeros = keras.layers.Dense(3, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.Input([2]), zeros])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.zeros([4, 2]), np.zeros([4, 3])
    >>> fit = model.fit(x, y, verbose=0, callbacks=[SparsityLogger()])
    >>> fit.history["zero_rows"]
    [1.0]

    Args:
        log_dir: Folder for TensorBoard, such as `workdir/tensorboard/sparsity`;
            None: only the logs.
        structures: What `tf_ssl.find_structures(model)` returned, which is
            looked through once; or a list of these, one by one; None: none.
        pictures: Whether TensorBoard gets pictures.
        freq: "epoch": TensorBoard is written each epoch, with the epoch as its
            step. Integer k: after every k-th batch, with the number of batches
            trained, `model.optimizer.iterations`, as its step.
        block: (h, w): adds the sparsity of such blocks of the weight matrix.
        threshold: Float >= 0: elements, and norms of groups and units, up to
            it count as zero. Defaults to 0.

    Raises:
        TypeError: `structures` are none.
        ValueError: Another argument is none of these; pictures without log_dir.

    Reference: Wen et al., "Learning Structured Sparsity in Deep Neural
    Networks", NIPS 2016: what the authors' solver prints, figures 5 and 6.
    """

    def __init__(
        self,
        log_dir=None,
        structures=None,
        pictures=False,
        freq="epoch",
        block=None,
        threshold=0.0,
    ):
        super().__init__()
        if freq != "epoch" and not (checks.is_integer(freq) and freq >= 1):
            raise ValueError(
                "Invalid value for argument freq. Expected 'epoch' or an "
                f"integer >= 1: batches. Received: freq={freq!r}"
            )
        if pictures and log_dir is None:
            raise ValueError(
                "Invalid value for argument log_dir. Expected a folder for the "
                f"pictures. Received: log_dir=None, pictures={pictures!r}"
            )
        for structure in structures or ():
            if not hasattr(structure, "dead"):
                raise TypeError(
                    "Invalid type for argument structures. Expected what "
                    "tf_ssl.find_structures(model) returns. "
                    f"Received: {structure!r} among them"
                )
        if block is not None:
            block = group_specs.block_spec(block)[1]
        self.log_dir = log_dir
        self.structures = structures
        self.pictures = bool(pictures)
        self.freq = freq
        self.block = block
        self.threshold = checks.not_negative("threshold", threshold)
        self._writer = None
        self._written = None

    def on_train_begin(self, logs=None):
        """Finds the kernels; opens the writer."""
        self._kernels = find_kernels(self.model)
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        self._written = self._num_batches()

    def on_train_batch_end(self, batch, logs=None):
        """Writes to TensorBoard after every `freq`-th batch."""
        if self.freq == "epoch" or self._writer is None:
            return
        step = self._num_batches()
        # One call can stand for several batches: steps_per_execution.
        if step // self.freq > self._written // self.freq:
            self._written = step
            self._write(step, *self._measure())

    def on_epoch_end(self, epoch, logs=None):
        """Adds the totals to `logs`."""
        kernels, structures = self._measure()
        if logs is not None:
            totals = add_counts(counts for _, counts in kernels)
            for name, (zeros, size) in totals.items():
                logs[_TOTALS[name]] = zeros / size if size else 0.0
            num_units = sum(size for _, _, size in structures)
            if num_units:
                num_dead = sum(dead for _, dead, _ in structures)
                logs[_DEAD] = num_dead / num_units
        if self._writer is not None and self.freq == "epoch":
            self._write(epoch, kernels, structures)

    def on_train_end(self, logs=None):
        """Closes the writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _num_batches(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _measure(self):
        """Counts of each kernel; (name, dead units, units) of structures."""
        kernels = count_model_zeros(self._kernels, self.block, self.threshold)
        structures = self.structures or ()
        if isinstance(structures, Structures):
            dead = structures.dead(self.threshold).values()
        else:
            dead = [s.dead(self.threshold) for s in structures]
        counts = [
            (s.name, int(units.sum()), s.size)
            for s, units in zip(structures, dead, strict=True)
        ]
        return kernels, counts

    def _write(self, step, kernels, structures):
        with self._writer.as_default(step=step):
            for kernel, counts in kernels:
                for name, (zeros, size) in counts.items():
                    value = zeros / size if size else 0.0
                    tf.summary.scalar(f"sparsity/{kernel}/{name}", value)
            for name, dead, size in structures:
                tf.summary.scalar(f"{_DEAD}/{name}", dead / max(size, 1))
            if self.pictures:
                for kernel in self._kernels:
                    self._draw(kernel)
        self._writer.flush()

    def _draw(self, kernel):
        about = (kernel.variable, kernel.kind, kernel.conv_groups)
        drawn = {"zeros": pictures_lib.zero_map(*about, self.threshold)}
        if pictures_lib.has_shapes(kernel):
            drawn["filter_shapes"] = pictures_lib.shape_picture(
                *about, self.threshold
            )
        for name, picture in drawn.items():
            # [pictures, height, width, channels]
            image = picture[None, :, :, None]
            tf.summary.image(f"{name}/{kernel.name}", image)
