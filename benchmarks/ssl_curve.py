"""Error against multiply-adds: structures learned away, and its rivals.

    PYTHONPATH=. python benchmarks/ssl_curve.py

For each seed a network is trained; then, from there, for each strength a group
Lasso over its structures takes units away, `tf_ssl.shrink` makes the network
small and it is fine-tuned. Rivals, all trained for as long in total:

- magnitude, same sizes: the units with the smallest norms are zeroed while it
  trains, as many of each layer as the group Lasso took; then as above;
- magnitude, same share: likewise, but one share of all layers, which leaves
  about as many multiply-adds;
- random: any units, as many of each layer, shrunk, then trained;
- direct design: the small network, trained from scratch;
- dense: the first network, trained on.

L1 on all kernels, its zeros held in fine-tuning, has sizes of its own: a unit
goes when all its weights did.

Multiply-adds and parameters are those of the shrunk network, which is what
runs. Errors are those of the last epoch on all test images, which choose
nothing. Writes table.md, points.jsonl (means over seeds) and curve.png.
"""

import statistics

import keras
import numpy as np
import small_runs
from absl import app, flags

import models
import tf_ssl
from tf_ssl import sweep

_MODEL = flags.DEFINE_string("model", "lenet", "See models.names().")
_DATASET = flags.DEFINE_string("dataset", "mnist", "TFDS's name, or: folder.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train.py.")
_IMAGES = flags.DEFINE_integer("train_images", 15000, "Of the training set.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Of each training, >= 1.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images a step, >= 1.", 1)
_RATE = flags.DEFINE_float("learning_rate", 0.02, "At the start, > 0.")
_STRENGTHS = flags.DEFINE_list(
    "strengths", ["0.01", "0.015", "0.02", "0.03"], "Of the group Lasso."
)
_L1 = flags.DEFINE_list(
    "l1", ["0.0003", "0.001", "0.002", "0.004"], "Strengths of L1."
)
_THRESHOLD = flags.DEFINE_float(
    "threshold", 1e-3, "With L1: smaller weights become 0, >= 0.", 0.0
)
small_runs.define_flags("ssl_curve")

LASSO, L1 = "group Lasso", "L1"
SIZES, SHARE = "magnitude, same sizes", "magnitude, same share"
RIVALS = (SIZES, SHARE, "random", "direct design")


def learned(model):
    """Its structures but that of the input."""
    return [s for s in tf_ssl.find_structures(model) if s.kind != "input"]


class Bench:
    """One seed: its data, and the network that all methods begin with."""

    def __init__(self, folder, seed):
        self.folder, self.seed = folder, seed
        self.train, self.test = small_runs.images(
            _IMAGES.value, seed, _DATASET.value, _DATA_DIR.value
        )
        (folder / "models").mkdir(exist_ok=True)

    def dense(self):
        """The network that is trained already."""
        return keras.saving.load_model(self.path("start"), compile=False)

    def path(self, name):
        """Of a model's file."""
        name = f"{_MODEL.value}_{name}_seed{self.seed}.keras"
        return self.folder / "models" / name

    def fit(self, model, stages, wrap=None, callbacks=()):
        """Trains for as many epochs as so many stages have."""
        epochs = stages * _EPOCHS.value
        optimizer = small_runs.cosine(
            _RATE.value, self.train, _BATCH.value, epochs
        )
        small_runs.fit(
            model,
            self.train,
            wrap(optimizer) if wrap else optimizer,
            _BATCH.value,
            epochs,
            self.seed,
            callbacks=list(callbacks),
        )
        return model

    def facts(self, model) -> dict:
        """Of a network that is small."""
        return {
            "error": round(100 - small_runs.accuracy(model, self.test), 2),
            "multiply_adds": tf_ssl.multiply_adds(model).total,
            "parameters": model.count_params(),
        }

    def start(self) -> dict:
        """Trains the network that all methods begin with, and then on."""
        shape = self.test[0].shape[1:]
        model = models.build(_MODEL.value, input_shape=shape, seed=self.seed)
        self.fit(model, 1)
        model.save(self.path("start"))
        return self.facts(self.fit(model, 2))

    def group_lasso(self, strength) -> dict:
        """Learns units away; saves the shrunk network for the rivals."""
        model = self.dense()
        structures = tf_ssl.find_structures(model)
        self.fit(
            model,
            1,
            wrap=lambda optimizer: tf_ssl.GroupLassoOptimizer(
                optimizer, structures, strength, update="proximal"
            ),
        )
        small = tf_ssl.shrink(model)
        small.save(self.path(f"lasso_{strength:g}"))
        left = {
            name: list(sizes)
            for name, sizes in small.shrink_report.units.items()
        }
        return {**self.facts(self.fit(small, 1)), "units": left}

    def rival(self, method, strength, units) -> dict:
        """A network with the units that the group Lasso left."""
        model = self.dense()
        if method == "direct design":
            small = keras.saving.load_model(
                self.path(f"lasso_{strength:g}"), compile=False
            )
            return self.facts(self.fit(keras.models.clone_model(small), 3))
        shares = {
            name: 1 - left / before for name, (before, left) in units.items()
        }
        if method == SHARE:
            target = tf_ssl.multiply_adds(self.zeroed(shares)).total
            shares = dict.fromkeys(shares, self.share_of(target))
        if method == "random":
            return self.facts(self.fit(self.zeroed(shares), 2))
        steps = -(-len(self.train[0]) // _BATCH.value) * _EPOCHS.value
        pruning = [
            tf_ssl.callbacks.MagnitudePruning(
                shares[structure.name],
                0,
                steps // 2,
                by="filter",
                structures=[structure],
            )
            for structure in learned(model)
        ]
        self.fit(model, 1, callbacks=pruning)
        return self.facts(self.fit(tf_ssl.shrink(model), 1))

    def zeroed(self, shares):
        """The first network without these shares of units, drawn at random."""
        model = self.dense()
        for structure in learned(model):
            share = shares[structure.name]
            tf_ssl.zero_random([structure], share, self.seed)
        return tf_ssl.shrink(model)

    def share_of(self, target):
        """Share of all units without which so many multiply-adds are left."""
        names = [structure.name for structure in learned(self.dense())]
        low, high = 0.0, 1.0
        for _ in range(8):
            middle = (low + high) / 2
            small = self.zeroed(dict.fromkeys(names, middle))
            if tf_ssl.multiply_adds(small).total > target:
                low = middle
            else:
                high = middle
        return high

    def l1(self, strength) -> dict:
        """L1 on all kernels, shrunk in the end."""
        model = self.dense()
        penalty = keras.regularizers.L1(strength)
        tf_ssl.regularize(model, {"*": penalty})
        self.fit(model, 1)
        threshold = _THRESHOLD.value
        for layer in model.layers:
            if getattr(layer, "kernel", None) is None:
                continue
            layer.kernel_regularizer = layer.kernel.regularizer = None
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            layer.kernel.assign(np.where(abs(kernel) < threshold, 0, kernel))
        self.fit(model, 1, callbacks=[tf_ssl.callbacks.FreezeZeros()])
        return self.facts(tf_ssl.shrink(model))


def of_seed(folder, seed) -> dict:
    """(Method, strength) -> what it has come to, of those that are there."""
    benches = []

    def run(name, method, *arguments):
        def do():
            if not benches:
                benches.append(Bench(folder, seed))
            return getattr(benches[0], method)(*arguments)

        return small_runs.once(folder, f"{name}_seed{seed}", do)

    found = {("dense", 0.0): run("start", "start")}
    for strength in map(float, _STRENGTHS.value):
        lasso = run(f"lasso_{strength:g}", "group_lasso", strength)
        found[LASSO, strength] = lasso
        for method in RIVALS if lasso else ():
            name = method.replace(",", "").replace(" ", "_")
            name = f"{name}_{strength:g}"
            found[method, strength] = run(
                name, "rival", method, strength, lasso["units"]
            )
    for strength in map(float, _L1.value):
        found[L1, strength] = run(f"l1_{strength:g}", "l1", strength)
    return {key: facts for key, facts in found.items() if facts}


def report(folder, results) -> str:
    """Table, points and plot of means over seeds."""
    rows, curve = [], []
    keys = dict.fromkeys(key for each in results for key in each)
    for method, strength in sorted(keys):
        key = method, strength
        runs = [each[key] for each in results if key in each]
        mean = {
            name: statistics.fmean(run[name] for run in runs)
            for name in ("error", "multiply_adds", "parameters")
        }
        rows.append(
            [
                method,
                f"{strength:g}",
                len(runs),
                small_runs.mean_and_spread([run["error"] for run in runs]),
                f"{mean['multiply_adds']:,.0f}",
                f"{mean['parameters']:,.0f}",
            ]
        )
        curve.append(
            sweep.Point(
                strength,
                mean["error"] / 100,
                round(mean["multiply_adds"]),
                round(mean["parameters"]),
                label=method,
            )
        )
    (folder / "points.jsonl").unlink(missing_ok=True)
    for point in curve:
        sweep.append(folder / "points.jsonl", point)
    title = f"{_MODEL.value} on {_DATASET.value}, means of {len(results)}"
    sweep.plot.save(folder / "curve.png", curve, title)
    header = ["method", "strength", "seeds", "error %", "multiply-adds"]
    header.append("parameters")
    return small_runs.write_table(
        folder, f"{_MODEL.value}: error against multiply-adds", header, rows
    )


def main(argv):
    small_runs.over_seeds(small_runs.begin(argv), of_seed, report)


if __name__ == "__main__":
    app.run(main)
