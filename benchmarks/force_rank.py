"""Ranks of filters with and without forces between them, at equal accuracy.

    PYTHONPATH=. python benchmarks/force_rank.py

For each seed a network is trained, then trained on from there: without force,
with `tf_ssl.ForceRegularizer` of both norms, and with `tf_ssl.AdaptiveForce`,
forces on convolutions; with --release_epochs each then trains on without
force. Reported: test accuracy, ranks of the convolutions at 95 % of the energy,
and what `tf_ssl.decompose` makes of each network: accuracy before and after
fine-tuning, multiply-adds. LeNet's strengths were chosen on a seed of their own
(--seeds=100, images of the training set held out).

--latency then times the networks of the first seed and their decompositions,
of all convolutions and of those that are faster by measurement, in turn in one
run; run it alone on the machine.

Reference: Wen et al., "Coordinating Filters for Faster Deep Neural Networks",
ICCV 2017, tables 2 to 4.
"""

import json

import keras
import small_runs
from absl import app, flags

import models
import tf_ssl

_MODEL = flags.DEFINE_string("model", "lenet", "See models.names().")
_DATASET = flags.DEFINE_string("dataset", "mnist", "TFDS's name, or: folder.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train.py.")
_IMAGES = flags.DEFINE_integer("train_images", 3000, "Of the training set.", 1)
_START_EPOCHS = flags.DEFINE_integer(
    "start_epochs", 5, "Of the training that all arms go on from, >= 1.", 1
)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Of each arm, >= 1.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images a step, >= 1.", 1)
_RATE = flags.DEFINE_float("learning_rate", 0.02, "At the start, > 0.")
_L1 = flags.DEFINE_float("l1", 0.005, "Strength of L1 forces, >= 0.", 0.0)
_L2 = flags.DEFINE_float("l2", 0.004, "Strength of L2 forces, >= 0.", 0.0)
_RATIO = flags.DEFINE_float("ratio", 1.0, "Of the adaptive force, >= 0.", 0.0)
_RELEASE = flags.DEFINE_integer(
    "release_epochs", 0, "After each arm, without force, >= 0.", 0
)
_FINETUNE = flags.DEFINE_integer(
    "finetune_epochs", 3, "Of decomposed networks, >= 1.", 1
)
_ENERGY = flags.DEFINE_float("energy", 0.95, "Share that stays, in (0, 1].")
_LATENCY = flags.DEFINE_bool("latency", False, "Time what is trained already.")
ARMS = ("none", "l1", "l2", "adaptive")
_ARMS = flags.DEFINE_multi_enum("arms", ARMS, ARMS, "Trainings to do.")
small_runs.define_flags("force")


def train(arm, start, data):
    """A network trained on from another's weights."""
    model = keras.models.clone_model(start)
    model.set_weights(start.get_weights())
    optimizer = small_runs.cosine(
        _RATE.value / 2, data, _BATCH.value, _EPOCHS.value
    )
    kernels = [layer.kernel.path for layer in convolutions(model)]
    if arm in ("l1", "l2"):
        strength = {"l1": _L1, "l2": _L2}[arm].value
        tf_ssl.regularize(
            model,
            {path: tf_ssl.ForceRegularizer(strength, arm) for path in kernels},
        )
    elif arm == "adaptive":
        optimizer = tf_ssl.AdaptiveForce(optimizer, _RATIO.value, kernels)
    return model, optimizer


def fit(model, data, rate, epochs, seed):
    """Trains without force."""
    optimizer = small_runs.cosine(rate, data, _BATCH.value, epochs)
    small_runs.fit(model, data, optimizer, _BATCH.value, epochs, seed)


def convolutions(model):
    """Layers that the forces act on."""
    return [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]


def facts(model, data, test, seed) -> dict:
    """What a trained network has come to, and its decomposition."""
    names = [layer.name for layer in convolutions(model)]
    ranks = tf_ssl.kernel_ranks(model, _ENERGY.value)
    small = decomposed(model)
    found = {
        "accuracy": small_runs.accuracy(model, test),
        "ranks": {name: ranks[name] for name in names},
        "decomposed_accuracy": small_runs.accuracy(small, test),
        "multiply_adds": [
            tf_ssl.multiply_adds(m).total for m in (model, small)
        ],
        "parameters": [m.count_params() for m in (model, small)],
    }
    fit(small, data, _RATE.value / 4, _FINETUNE.value, seed)
    found["finetuned_accuracy"] = small_runs.accuracy(small, test)
    return found


def decomposed(model, measure_batch=None):
    """Its convolutions of low rank; those that are faster so, if measured."""
    others = [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    ]
    return tf_ssl.decompose(
        model,
        energy=_ENERGY.value,
        exclude=others,
        measure_batch=measure_batch,
        seconds=2.0,
    )


def of_seed(folder, seed) -> dict:
    """Arm -> what it has come to, of those that are there."""
    paths = {
        arm: folder / "models" / f"{_MODEL.value}_{arm}_seed{seed}.keras"
        for arm in ("start", *_ARMS.value)
    }
    paths["start"].parent.mkdir(parents=True, exist_ok=True)
    loaded = []

    def data():
        if not loaded:
            loaded.extend(
                small_runs.images(
                    _IMAGES.value, seed, _DATASET.value, _DATA_DIR.value
                )
            )
        return loaded

    def start():
        train_data, test = data()
        model = models.build(
            _MODEL.value, input_shape=test[0].shape[1:], seed=seed
        )
        fit(model, train_data, _RATE.value, _START_EPOCHS.value, seed)
        model.save(paths["start"])
        return {"accuracy": small_runs.accuracy(model, test)}

    def arm_run(arm):
        train_data, test = data()
        begin = keras.saving.load_model(paths["start"], compile=False)
        model, optimizer = train(arm, begin, train_data)
        small_runs.fit(
            model, train_data, optimizer, _BATCH.value, _EPOCHS.value, seed
        )
        for layer in convolutions(model):
            layer.kernel_regularizer = layer.kernel.regularizer = None
        model.save(paths[arm])
        return facts(model, train_data, test, seed)

    def released_run(arm):
        train_data, test = data()
        model = keras.saving.load_model(paths[arm], compile=False)
        fit(model, train_data, _RATE.value / 4, _RELEASE.value, seed)
        model.save(paths[arm].with_stem(f"{paths[arm].stem}_released"))
        return facts(model, train_data, test, seed)

    def once(name, run, *arguments):
        return small_runs.once(
            folder,
            f"{_MODEL.value}_{name}_seed{seed}",
            lambda: run(*arguments),
        )

    once("start", start)
    found = {}
    for arm in _ARMS.value:
        found[arm] = once(arm, arm_run, arm)
        if found[arm] and _RELEASE.value:
            released = once(f"{arm}_released", released_run, arm)
            found[f"{arm}, released"] = released
    return {arm: result for arm, result in found.items() if result}


def rank_share(result) -> float:
    """Mean over layers of rank over full rank, percent."""
    shares = [rank / full for rank, full in result["ranks"].values()]
    return 100 * sum(shares) / len(shares)


def report(folder, results) -> str:
    """Table of the arms, over seeds."""
    rows = []
    for arm in dict.fromkeys(arm for each in results for arm in each):
        found = [each[arm] for each in results if arm in each]
        ranks = "; ".join(
            f"{name} {'/'.join(str(r['ranks'][name][0]) for r in found)} of "
            f"{found[0]['ranks'][name][1]}"
            for name in found[0]["ranks"]
        )
        over = small_runs.mean_and_spread
        rows.append(
            [
                arm,
                len(found),
                over([r["accuracy"] for r in found]),
                ranks,
                over([rank_share(r) for r in found]),
                over([r["decomposed_accuracy"] for r in found]),
                over([r["finetuned_accuracy"] for r in found]),
                over(
                    [
                        r["multiply_adds"][0] / r["multiply_adds"][1]
                        for r in found
                    ]
                ),
            ]
        )
    header = [
        *("force", "seeds", "accuracy %", "ranks at 95 %, by seed"),
        *("mean rank %", "decomposed %", "fine-tuned %", "fewer multiply-adds"),
    ]
    return small_runs.write_table(
        folder, f"{_MODEL.value}: ranks of convolutions", header, rows
    )


def time_models(folder) -> None:
    """Writes latency.json: networks of the first seed, decomposed, in turn."""
    seed = small_runs.seeds()[0]
    named = {}
    end = "_released" * bool(_RELEASE.value)
    for arm in _ARMS.value:
        name = f"{_MODEL.value}_{arm}_seed{seed}{end}.keras"
        path = folder / "models" / name
        model = keras.saving.load_model(path, compile=False)
        named.setdefault("whole", model)
        named[arm] = decomposed(model)
        named[f"{arm}, measured"] = small = decomposed(model, 32)
        print(f"{arm}:\n{small.decompose_report}", flush=True)
    times = tf_ssl.measure_latency(named, batch_sizes=(1, 32), seconds=8.0)
    rows = {
        name: {batch: latency.median_ms for batch, latency in each.items()}
        for name, each in times.items()
    }
    (folder / "latency.json").write_text(json.dumps(rows, indent=1) + "\n")
    for name, each in rows.items():
        print(
            name,
            *(
                f"batch {batch}: {ms:.3f} ms, {rows['whole'][batch] / ms:.2f}x"
                for batch, ms in each.items()
            ),
            sep="  ",
        )


def main(argv):
    folder = small_runs.begin(argv)
    if _LATENCY.value:
        time_models(folder)
        return
    small_runs.over_seeds(folder, of_seed, report)


if __name__ == "__main__":
    app.run(main)
