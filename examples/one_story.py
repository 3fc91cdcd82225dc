"""One network from training on many workers to an edge device.

    python -m examples.one_story --workdir=runs/one_story
    horovodrun --gloo -np 2 -H localhost:2 \
      python -m examples.one_story --workdir=runs/one_story --workers=1
    python -m examples.one_story --workdir=runs/story_resnet20 \
      --model=resnet20 --dataset=cifar10 --data_dir=DIR --augment=cifar_pad \
      --epochs=60 --ssl_epochs=60 --finetune_epochs=20 --learning_rate=0.1

Stages, each with a file in --workdir:

    terngrad    trained on N workers with gradients of three levels
    ssl         trained on, on the same workers, with group Lasso on structures
    shrink      structures that are zero, or nearly so, removed; fine-tuned
    decompose   layers of low rank become two; fine-tuned
    sparsify    small weights pruned while fine-tuning; sparse kernels where
                they are faster
    savedmodel  the network before sparse kernels, for TensorFlow Serving
    int8        the same for LiteRT, weights and activations of 8 bits

Workers are virtual (--workers, one process computes for each in turn) and, if
horovodrun starts several processes, real; after `ssl` the first goes on alone.
The same command goes on where it was killed: the first two stages at their last
epoch, others at their beginning. At the end each file is loaded in a process of
its own, all are timed in turn, and one table is printed.
"""

from __future__ import annotations

import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import models
import tf_ssl
import tf_terngrad as tg
from examples import story_table
from models.run import host
from models.seeds import seed_streams
from tf_terngrad import checkpoint

FILES = {
    "terngrad": "1_terngrad.keras",
    "ssl": "2_ssl.keras",
    "shrink": "3_shrink.keras",
    "decompose": "4_decompose.keras",
    "sparsify": "5_sparsify.keras",
    "savedmodel": "6_savedmodel",
    "int8": "7_int8.tflite",
}


def define_flags(to: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the program's flags in `to`."""

    def define(kind, *args):
        getattr(flags, f"DEFINE_{kind}")(*args, flag_values=to)

    define("string", "workdir", None, "Folder for the stages; required.")
    define("enum", "model", "lenet", models.names(), "What to train.")
    define("string", "dataset", "mnist", "TFDS's name, or: folder.")
    define("string", "data_dir", None, "As in train.py.")
    define("enum", "augment", "none", models.data.AUGMENTATIONS, "As there.")
    define("integer", "workers", 4, "Virtual ones of a process, >= 1.", 1)
    define("integer", "batch_size", 16, "Images per worker, >= 1.", 1)
    define("integer", "epochs", 2, "Of terngrad, >= 1.", 1)
    define("integer", "ssl_epochs", 5, "Of ssl, >= 1.", 1)
    define("integer", "finetune_epochs", 3, "Of each later stage, >= 1.", 1)
    define("integer", "steps_per_epoch", 0, "0: all of the data.", 0)
    define("float", "learning_rate", 0.02, "At the start, > 0.", 1e-9)
    define("float", "structure_lasso", 0.006, "Strength in ssl, >= 0.", 0.0)
    define("float", "threshold", 0.05, "Norm of units that go, >= 0.", 0.0)
    define("float", "energy", 0.9, "Kept by decompose, in (0, 1].", 1e-9, 1.0)
    define("float", "sparsity", 0.8, "Of sparsify's kernels, [0, 1).", 0.0, 1)
    define("float", "seconds", 5.0, "Timing, for a batch size, >= 0.", 0.0)
    define("enum", "until", "int8", list(FILES), "The last stage to do.")
    define("integer", "seed", 0, "Of all that is drawn, >= 0.", 0)
    flags.mark_flag_as_required("workdir", flag_values=to)


class Story:
    """The stages of one network.

    Args:
      options: parsed flags.
      say: gets lines of text for the user.
    """

    def __init__(self, options: flags.FlagValues, say=print):
        self.options = options
        self.say = say
        self.folder = pathlib.Path(options.workdir)
        tg.init()
        self.rank = tg.rank()
        self.data = models.data.load(
            options.dataset, options.data_dir, augment=options.augment
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._facts_path = self.folder / "story.json"
        self.facts = (
            json.loads(self._facts_path.read_text())
            if self._facts_path.is_file()
            else {}
        )

    def run(self) -> dict:
        """Does the stages that are missing; returns stage -> facts."""
        model = None
        for stage in FILES:
            if stage not in self.facts:
                if stage == "shrink" and self.rank:
                    break  # the first process goes on alone
                start = time.monotonic()
                model = getattr(self, f"_{stage}")(
                    self._before(stage) if model is None else model
                )
                if self.rank == 0:
                    self._finish(stage, model, time.monotonic() - start)
            if stage == self.options.until:
                break
        if self.rank == 0 and set(self.facts) == set(FILES):
            self._compare()
        return self.facts

    # --- Stages: from the model before to the model of the stage

    def _terngrad(self, _):
        model = models.build(
            self.options.model,
            input_shape=self.data.image_shape,
            num_classes=self.data.num_classes,
            seed=self.options.seed,
        )
        epochs = self.options.epochs
        self._train("terngrad", model, self._optimizer(epochs), epochs)
        return model

    def _ssl(self, model):
        structures = [
            each
            for each in tf_ssl.find_structures(model)
            if each.kind != "input"
        ]
        epochs = self.options.ssl_epochs
        optimizer = tf_ssl.GroupLassoOptimizer(
            self._optimizer(epochs, 0.5),
            structures,
            strength=self.options.structure_lasso,
            update="proximal",
        )
        self._train("ssl", model, optimizer, epochs)
        return model

    def _shrink(self, model):
        # Three levels move the weights of dead units in every step, to less
        # and less as the learning rate falls: they end near zero, not at it.
        small = tf_ssl.shrink(model, threshold=self.options.threshold)
        self.say(small.shrink_report)
        return self._finetune(small)

    def _decompose(self, model):
        small = tf_ssl.decompose(model, energy=self.options.energy)
        self.say(small.decompose_report)
        return self._finetune(small)

    def _sparsify(self, model):
        steps = self._steps(1) * self.options.finetune_epochs
        if self.options.sparsity:
            pruning = tf_ssl.callbacks.MagnitudePruning(
                self.options.sparsity, 0, max(1, steps // 2), frequency=20
            )
            model = self._finetune(model, [pruning])
        _plain(model).save(self.folder / "pruned.keras")
        sparse = tf_ssl.sparsify(model)
        self.say(sparse.sparsify_report)
        return sparse

    def _savedmodel(self, _):
        model = keras.saving.load_model(self.folder / "pruned.keras")
        tf_ssl.export(model, self.folder / FILES["savedmodel"])
        return model

    def _int8(self, _):
        model = keras.saving.load_model(self.folder / "pruned.keras")
        # Training images, without augmentation's randomness.
        images, _ = next(iter(self.data.train(256, seed=self.options.seed)))
        tf_ssl.export(
            model,
            self.folder / FILES["int8"],
            "tflite",
            quantize="int8",
            representative=images.numpy(),
        )
        return model

    # --- What they share

    def _before(self, stage):
        """The model that a stage begins with, from its file."""
        earlier = list(FILES)[: list(FILES).index(stage)]
        keras_files = [s for s in earlier if FILES[s].endswith(".keras")]
        if not keras_files:
            return None
        return keras.saving.load_model(
            self.folder / FILES[keras_files[-1]], compile=False
        )

    def _steps(self, processes):
        workers = self.options.workers * processes
        all_steps = self.data.steps_per_epoch(self.options.batch_size, workers)
        return min(self.options.steps_per_epoch or all_steps, all_steps)

    def _optimizer(self, epochs, share=1.0, processes=None):
        steps = self._steps(processes or tg.size()) * epochs
        rate = share * self.options.learning_rate
        return keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(rate, steps), momentum=0.9
        )

    def _train(self, stage, model, optimizer, epochs):
        """Trains on all workers; goes on from its last checkpoint."""
        options = self.options
        workers = tg.LocalWorkers(options.workers)
        model.compile(
            tg.DistributedOptimizer(
                optimizer, tg.TernGrad(seed=options.seed), workers=workers
            ),
            _loss(),
            metrics=["accuracy"],
            jit_compile=False,
            auto_scale_loss=False,
        )
        workers.attach(model)
        model.optimizer.build(model.trainable_variables)
        seed_streams(model, options.seed, self.rank)
        folder = self.folder / "checkpoints" / stage
        first_epoch = checkpoint.restore(folder, model)
        num_workers = options.workers * tg.size()
        self.say(f"{stage}: {num_workers} workers, from epoch {first_epoch}")
        model.fit(
            self.data.train(
                options.batch_size,
                self.rank * options.workers,
                num_workers,
                options.seed,
                first_epoch,
                num_ranks=options.workers,
            ),
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=self._steps(tg.size()),
            shuffle=False,
            callbacks=[
                tg.callbacks.BroadcastVariables(statistics=first_epoch == 0),
                tg.callbacks.AverageStatistics(),
                tg.callbacks.ExchangeMetrics(),
                tg.callbacks.ReplicaCheck(),
                checkpoint.Checkpoint(folder),
            ],
            verbose=0 if self.rank else 2,
        )

    def _finetune(self, model, callbacks=()):
        """Trains in this process alone."""
        options, epochs = self.options, self.options.finetune_epochs
        model.compile(
            self._optimizer(epochs, 0.25, processes=1),
            _loss(),
            metrics=["accuracy"],
            jit_compile=False,
        )
        model.fit(
            self.data.train(
                options.batch_size * options.workers, seed=1 + options.seed
            ),
            epochs=epochs,
            steps_per_epoch=self._steps(1),
            shuffle=False,
            callbacks=list(callbacks),
            verbose=2,
        )
        return model

    def _finish(self, stage, model, seconds):
        """Writes the stage's file, if it is a Keras model's, and its facts."""
        path = self.folder / FILES[stage]
        if path.suffix == ".keras":
            _plain(model).save(path)
        self.facts[stage] = {
            "seconds": seconds,
            **story_table.facts(path, self.data.test(500)),
        }
        self._write()
        self.say(f"{stage}: {self.facts[stage]}")

    def _compare(self):
        """Loads each file in a fresh process, times all in turn."""
        images = next(iter(self.data.test(64)))[0].numpy()
        paths = {stage: self.folder / name for stage, name in FILES.items()}
        for stage, path in paths.items():
            difference = story_table.check_fresh(path, images)
            if not difference < 1e-4:
                raise RuntimeError(
                    f"{path} computes something else in a fresh process: "
                    f"difference {difference:.1e}"
                )
            self.facts[stage]["fresh"] = difference
        found = story_table.times(paths, images, self.options.seconds)
        for stage, each in found.items():
            self.facts[stage]["ms"] = {str(n): ms for n, ms in each.items()}
        self._write()

    def _write(self):
        writing = self._facts_path.with_suffix(".writing")
        writing.write_text(json.dumps(self.facts, indent=1) + "\n")
        writing.rename(self._facts_path)


def _plain(model):
    """The model without optimizer and training step."""
    # keras.models.clone_model would copy the optimizer, too.
    copy = type(model).from_config(model.get_config())
    copy.set_weights([np.asarray(w) for w in model.get_weights()])
    return copy


def _loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main(argv):
    """Runs the story and prints its table."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    start = time.monotonic()
    tg.init()
    # Before the data, whose images TensorFlow decodes.
    host.share(tg.local_rank(), tg.local_size())

    def say(text):
        if tg.rank() == 0:
            print(text, flush=True)

    story = Story(flags.FLAGS, say)
    facts = story.run()
    if story.rank == 0:
        text = story_table.table(facts)
        (story.folder / "table.md").write_text(text + "\n")
        say(f"\n{text}\n\nthis start: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    define_flags()
    app.run(main)
