"""Unsupervised adaptation from MNIST to digits on textures.

    PYTHONPATH=. python benchmarks/adaptation.py

The source is a part of MNIST, 20 x 20 pixels, with its labels, the target other
images of MNIST on textures (`models.data.shift.textured`), without labels. For
each seed a network is trained on the source; three go on from there, equally
long: on the source alone; with `models.adaptation.adapt`, which sees the
target's images too; and, as the bound, on the target's images with their
labels. All are tested on the test images of both domains. Weights of the two
losses were chosen on a seed of their own (100) by labels of target images that
were held out: without any labels of a target they would be guesses.

Reference: Wu et al., "A compact DNN: approaching GoogLeNet-level accuracy of
classification and domain adaptation", CVPR 2017, section 4.
"""

import keras
import numpy as np
import small_runs
from absl import app, flags

import models
from models.adaptation import adapt
from models.data.shift import textured

_MODEL = flags.DEFINE_string("model", "lenet", "See models.names().")
_IMAGES = flags.DEFINE_integer("train_images", 3000, "Of each domain.", 1)
_SIZE = flags.DEFINE_integer("image_size", 20, "Pixels; 28: as it is.", 16)
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Of both trainings, >= 1.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Of each domain, >= 1.", 1)
_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Adam's, > 0.")
_DIVERGENCE = flags.DEFINE_float("divergence", 1.0, "Weight, >= 0.", 0.0)
_ENTROPY = flags.DEFINE_float("entropy", 0.0, "Weight, >= 0.", 0.0)
_HELD_OUT = flags.DEFINE_integer(
    "held_out", 0, "Test on so many training images instead; to choose.", 0
)
small_runs.define_flags("adaptation")

ARMS = ("source only", "adapted", "target with labels")


def domains(seed):
    """(source, target), (source test, target test), each images and labels."""
    count = _IMAGES.value
    (images, labels), test = small_runs.images(
        2 * count + _HELD_OUT.value, seed, size=_SIZE.value
    )
    if _HELD_OUT.value:
        test = images[2 * count :], labels[2 * count :]
    source = images[:count], labels[:count]
    target = (
        textured(images[count : 2 * count], 1 + seed),
        labels[count : 2 * count],
    )
    # Textures of the test images are others, the same for all seeds.
    return (source, target), (test, (textured(test[0], 0), test[1]))


def run(arm, start, seed) -> dict:
    """Trains one network; accuracy on both domains.

    Args:
      arm: "start", which is trained on the source and saved, or of `ARMS`.
      start: path of that network.
      seed: of the images and of the first weights.
    """
    (source, target), tests = domains(seed)
    if arm == "start":
        shape = source[0].shape[1:]
        model = models.build(_MODEL.value, input_shape=shape, seed=seed)
    else:
        model = keras.saving.load_model(start, compile=False)
    optimizer = keras.optimizers.Adam(_RATE.value)
    options = (_BATCH.value, _EPOCHS.value, seed)
    if arm == "adapted":
        pair = {"source": source[0], "target": target[0]}
        training = adapt(model, _DIVERGENCE.value, _ENTROPY.value)
        small_runs.fit(training, (pair, source[1]), optimizer, *options)
    else:
        data = target if arm == "target with labels" else source
        small_runs.fit(model, data, optimizer, *options)
    if arm == "start":
        start.parent.mkdir(parents=True, exist_ok=True)
        model.save(start)
    return dict(
        zip(
            ("source", "target"),
            (small_runs.accuracy(model, test) for test in tests),
            strict=True,
        )
    )


def report(folder, results) -> str:
    """Table over seeds."""
    over = small_runs.mean_and_spread
    rows = [
        [
            *(arm, len(found)),
            over([r["source"] for r in found]),
            over([r["target"] for r in found]),
            ", ".join(f"{r['target']:.2f}" for r in found),
        ]
        for arm, found in results.items()
        if found
    ]
    notes = []
    pairs = list(zip(results[ARMS[1]], results[ARMS[0]], strict=False))
    if pairs:
        gains = [a["target"] - b["target"] for a, b in pairs]
        notes = [
            "Gain by adaptation, points by seed: "
            f"{', '.join(f'{gain:+.2f}' for gain in gains)}; mean "
            f"{np.mean(gains):+.2f}.",
            "",
        ]
    header = ["trained on", "seeds", "source %", "target %", "target, by seed"]
    return small_runs.write_table(
        folder, f"{_MODEL.value}: MNIST to textured digits", header, rows, notes
    )


def main(argv):
    folder = small_runs.begin(argv)
    results = {arm: [] for arm in ARMS}
    for seed in small_runs.seeds():
        start = folder / "models" / f"{_MODEL.value}_start_seed{seed}.keras"
        for arm in ("start", *ARMS):
            found = small_runs.once(
                folder,
                f"{_MODEL.value}_{arm.replace(' ', '_')}_seed{seed}",
                lambda a=arm, p=start, s=seed: run(a, p, s),
            )
            if found and arm in results:
                results[arm].append(found)
        text = report(folder, results)
    print(text)


if __name__ == "__main__":
    app.run(main)
