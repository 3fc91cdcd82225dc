"""Accuracy and sharpness with and without SmoothOut, small and large batches.

    PYTHONPATH=. python benchmarks/smooth_out.py

Trains a network on a part of MNIST with batches of both sizes, without noise,
with `tg.smooth(model, a)`, and with noise scaled to each filter (AdaSmoothOut).
The large batch has the learning rate of the square root rule and a warm-up.
All runs of a seed begin with the same weights and see each image equally often.
Reported: test accuracy, loss of the training images, and `tg.sharpness` on 2000
of them. The amounts of noise were chosen on a seed of its own (100) by images
of the training set that were held out.

Writes line.png: the loss between the networks of small and large batches.

Reference: Wen et al., "SmoothOut: Smoothing Out Sharp Minima to Improve
Generalization in Deep Learning", arXiv 1805.07898.
"""

import keras
import small_runs
from absl import app, flags

import models
import tf_terngrad as tg

_MODEL = flags.DEFINE_string("model", "mlp", "See models.names().")
_IMAGES = flags.DEFINE_integer("train_images", 4000, "Of the training set.", 1)
_EPOCHS = flags.DEFINE_integer("epochs", 12, "Of every run, >= 1.", 1)
_BATCHES = flags.DEFINE_list("batch_sizes", ["32", "256"], "Images a step.")
_RATE = flags.DEFINE_float("learning_rate", 0.02, "Of the first, > 0.")
_AMOUNT = flags.DEFINE_float("a", 0.05, "Uniform noise, >= 0.", 0.0)
_SHARE = flags.DEFINE_float("share", 0.5, "AdaSmoothOut's a, >= 0.", 0.0)
_HELD_OUT = flags.DEFINE_integer(
    "held_out", 0, "Test on so many training images instead; to choose a.", 0
)
small_runs.define_flags("smooth_out")

ARMS = ("none", "uniform", "filter")


def run(arm, batch_size, seed) -> dict:
    """Trains one network."""
    data, test = small_runs.images(_IMAGES.value + _HELD_OUT.value, seed)
    if _HELD_OUT.value:
        test = [each[_IMAGES.value :] for each in data]
        data = [each[: _IMAGES.value] for each in data]
    model = models.build(_MODEL.value, input_shape=test[0].shape[1:], seed=seed)
    first = int(_BATCHES.value[0])
    rate = tg.scaled_learning_rate(_RATE.value, batch_size, first, "sqrt")
    # The warm-up: a tenth of the steps.
    steps = -(-len(data[0]) // batch_size) * _EPOCHS.value
    optimizer = small_runs.cosine(
        0.1 * rate,
        data,
        batch_size,
        _EPOCHS.value,
        warmup_target=rate,
        warmup_steps=steps // 10,
    )
    keras.utils.set_random_seed(seed)
    small_runs.compile_model(model, optimizer)
    if arm != "none":
        tg.smooth(
            model,
            _AMOUNT.value if arm == "uniform" else _SHARE.value,
            adaptive="none" if arm == "uniform" else "filter",
            seed=seed,
        )
    model.fit(*data, batch_size, _EPOCHS.value, verbose=0)
    images, labels = (each[:2000] for each in data)
    loss = small_runs.loss()
    found = {
        "train_loss": float(loss(data[1], model(data[0], training=False))),
        "sharpness": tg.sharpness(
            model, lambda: loss(labels, model(images, training=False))
        ),
    }
    path = _model_path(arm, batch_size, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    found["accuracy"] = small_runs.accuracy(model, test)
    model.save(path)
    return found


def _model_path(arm, batch_size, seed):
    folder = small_runs.pathlib.Path(flags.FLAGS.output) / "models"
    return folder / f"{arm}_{batch_size}_seed{seed}.keras"


def report(folder, results) -> str:
    """Table over seeds."""
    over = small_runs.mean_and_spread
    rows = []
    for (batch_size, arm), found in sorted(
        results.items(), key=lambda item: item[0][0]
    ):
        if found:
            rows.append(
                [
                    *(batch_size, arm, len(found)),
                    over([r["accuracy"] for r in found]),
                    ", ".join(f"{r['accuracy']:.2f}" for r in found),
                    " ".join(f"{r['train_loss']:.1e}" for r in found),
                    over([r["sharpness"] for r in found]),
                ]
            )
    header = ["batch", "noise", "seeds", "test accuracy %", "by seed"]
    header += ["training loss, by seed", "sharpness"]
    return small_runs.write_table(
        folder, f"SmoothOut: {_MODEL.value} on MNIST", header, rows
    )


def draw_line(folder, seed) -> None:
    """The loss between the networks of small and large batches."""
    small, large = map(int, _BATCHES.value)
    data, test = small_runs.images(_IMAGES.value, seed)
    alphas = [i / 10 for i in range(-5, 16)]
    lines = {}
    for arm in ARMS[:2]:
        paths = [_model_path(arm, size, seed) for size in (small, large)]
        if not all(path.is_file() for path in paths):
            return
        pair = [keras.saving.load_model(p, compile=False) for p in paths]
        for name, part in (("training", data), ("test", test)):
            images, labels = (each[:2000] for each in part)

            def loss(model, images=images, labels=labels):
                return small_runs.loss()(labels, model(images, training=False))

            lines[f"{arm}, {name}"] = tg.loss_line(*pair, loss, alphas)
    tg.plot_loss_line(folder / "line.png", alphas, lines)


def main(argv):
    folder = small_runs.begin(argv)
    results = {
        (int(batch_size), arm): []
        for arm in ARMS
        for batch_size in _BATCHES.value
    }
    for seed in small_runs.seeds():
        for batch_size, arm in results:
            found = small_runs.once(
                folder,
                f"{arm}_{batch_size}_seed{seed}",
                lambda b=batch_size, a=arm, s=seed: run(a, b, s),
            )
            if found:
                results[batch_size, arm].append(found)
        text = report(folder, results)
    draw_line(folder, small_runs.seeds()[0])
    print(text)


if __name__ == "__main__":
    app.run(main)
