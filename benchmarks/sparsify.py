"""Networks on sparse kernels against themselves, end to end.

    PYTHONPATH=. python benchmarks/sparsify.py --output=docs/results/sparsify

Random weights, of which the given share is zeroed at random places (planted,
not learned). tf_ssl.sparsify measures each layer, then both networks are timed
in turn. Printed beside the speed-up: what the layers promise (the time of the
dense network less what the layers save, each alone). --sizes prints the bytes
of the kernels in several formats. The baseline is TensorFlow's own inference,
NHWC, oneDNN.

Reference: Park et al., Faster CNNs with direct sparse convolutions and guided
pruning, ICLR 2017, section 4.
"""

import json
import pathlib

import keras
import numpy as np
from absl import app, flags

import custom_ops
import models
import tf_ssl

_MODELS = flags.DEFINE_list("models", ["caffenet", "resnet50"], "Names.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.9, "Of each kernel.", 0.0, 1.0)
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Examples a call.")
_SECONDS = flags.DEFINE_float("seconds", 0.5, "For a layer; the model: 4x.", 0)
_SIZES = flags.DEFINE_bool("sizes", False, "Print the bytes of the kernels.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for results.")


def plant(model):
    """Zeroes elements of all kernels but that of the first convolution."""
    random = np.random.default_rng(0)
    kernels = [v for v in model.variables if v.name == "kernel"]
    for kernel in kernels[1:]:
        value = kernel.numpy()
        value[random.random(value.shape) < _SPARSITY.value] = 0
        kernel.assign(value)


def measure(name, batch_size) -> dict:
    """A row of the table."""
    keras.utils.clear_session()
    model = models.build(name)
    plant(model)
    sparse = tf_ssl.sparsify(
        model, batch_size=batch_size, seconds=_SECONDS.value
    )
    report = sparse.sparsify_report
    print(f"\n{name}, batch {batch_size}\n{report}", flush=True)
    won = [row for row in report.layers if row.is_sparse]
    saved = sum(row.milliseconds[0] - row.milliseconds[1] for row in won)
    before, after = report.milliseconds or (np.nan, np.nan)
    if _SIZES.value:
        print(tf_ssl.storage.sizes(sparse), flush=True)
    inputs = (
        np.random.default_rng(1)
        .normal(size=(batch_size, *model.inputs[0].shape[1:]))
        .astype(np.float32)
    )
    return {
        "model": name,
        "batch": batch_size,
        "sparse_layers": len(won),
        "layers": len(report.layers),
        "ms": {"before": before, "after": after},
        "faster": before / after,
        "layers_promise": before / (before - saved),
        "difference": tf_ssl.relative_difference(
            model(inputs, training=False), sparse(inputs, training=False)
        ),
    }


def main(argv):
    del argv
    print(", ".join(f"{k} {v}" for k, v in tf_ssl.machine().items()))
    print(f"{custom_ops.describe()}; {_SPARSITY.value:.0%} zeros at random")
    rows = [
        measure(name, int(batch))
        for name in _MODELS.value
        for batch in _BATCHES.value
    ]
    print(
        f"\n{'model':10}{'batch':>6}{'sparse layers':>15}{'before ms':>11}"
        f"{'after':>9}{'faster':>8}{'layers promise':>16}"
        f"{'difference':>12}"
    )
    for row in rows:
        layers = f"{row['sparse_layers']} of {row['layers']}"
        print(
            f"{row['model']:10}{row['batch']:6}{layers:>15}"
            f"{row['ms']['before']:11.2f}{row['ms']['after']:9.2f}"
            f"{row['faster']:7.2f}x{row['layers_promise']:15.2f}x"
            f"{row['difference']:12.1e}"
        )
    if _OUTPUT.value:
        folder = pathlib.Path(_OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"machine": tf_ssl.machine(), "rows": rows}
        path = folder / "sparsify.json"
        path.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
