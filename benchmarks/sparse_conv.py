"""Sparse convolution beside TensorFlow's and others' in one run.

    python benchmarks/sparse_conv.py --section=unstructured --layers='alexnet/*'

Sections: unstructured (random masks), structured (columns, blocks, the talk's
SSL layers, LeNet's learned shapes), nchw, plan (what `custom_ops` chooses by
itself, never slower than dense), backward (gradients), rivals (sparseprop on
its own shape, scipy CSR on 1x1). Baselines: TensorFlow NHWC (oneDNN), and
PyTorch channels_last with --rivals='python of an environment with torch'. All
of ours go through the TensorFlow op, from NHWC to NHWC.

Effective GFLOP/s count the dense work, real ones the non-zeros' work; the
share is that of the measured multiply-add peak. At batch 1, 16 convolutions of
different inputs share a call, ours and TensorFlow's alike.
"""

import fnmatch
import json
import pathlib
import platform

import numpy as np
import sparse_conv_cases as cases
import tensorflow as tf
from absl import app, flags, logging
from sparse_conv_measure import Bench, Rivals, medians, peak_gflops

import custom_ops

_SECTION = flags.DEFINE_enum(
    "section",
    "unstructured",
    ["unstructured", "structured", "nchw", "plan", "backward", "rivals"],
    "What to measure.",
)
_LAYERS = flags.DEFINE_string("layers", "*", "Pattern of layers' names.")
_SPARSITIES = flags.DEFINE_list(
    "sparsities", ["0.35", "0.8", "0.9", "0.95"], "Fractions of zeros."
)
_BATCH = flags.DEFINE_integer("batch", 32, "Images a call.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed rounds.", 1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of an op.", 1)
_RIVALS = flags.DEFINE_string(
    "rivals", None, "Command of a Python with torch, sparseprop, scipy."
)
_PEAK = flags.DEFINE_string(
    "peak_program",
    "build/core/sparse_conv_benchmark",
    "C++ benchmark that measures the multiply-add peak (`make test-core`).",
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def _layers(layers):
    return [x for x in layers if fnmatch.fnmatch(x.name, _LAYERS.value)]


def _row(layer, mask, ms, dense_ms, peak, **more):
    density = float(mask.mean())
    effective = layer.flops(_BATCH.value) / ms / 1e6
    return {
        "layer": layer.name,
        "batch": _BATCH.value,
        "zeros": round(1 - density, 4),
        "dense_ms": dense_ms,
        "ours_ms": ms,
        "speed_up": min(dense_ms.values()) / ms,
        "effective_gflops": effective,
        "real_gflops": effective * density,
        "peak_share": effective * density / peak if peak else None,
        **more,
    }


def _print(row):
    dense = " ".join(f"{k} {v:.2f}" for k, v in row["dense_ms"].items())
    share = row["peak_share"]
    text = (
        f"{row['layer']:<24} b{row['batch']:<2} {row['zeros']:5.1%} zeros  "
        f"dense ms: {dense}  ours {row['ours_ms']:7.3f}  "
        f"{row['speed_up']:5.2f}x  eff {row['effective_gflops']:5.0f} real "
        f"{row['real_gflops']:4.0f} GFLOP/s"
    )
    if share is not None:
        text += f" ({share:.0%} of peak)"
    for key in ("pattern", "reduction", "of_reduction", "talk", "kernel"):
        if key in row:
            value = row[key]
            text += (
                f"  {key} {value:.2f}"
                if isinstance(value, float)
                else (f"  {key} {value}")
            )
    if "prepare_ms" in row:
        text += (
            f"  prepare {row['prepare_ms']:.2f} values {row['values_ms']:.2f}"
        )
    print(text, flush=True)


def _measure(layer, masks, peak, rivals, rng, data_format="NHWC", prepare=True):
    """One layer with several masks: [(mask, extra entries of the row)]."""
    bench = Bench(layer, _BATCH.value, rng, data_format)
    full = rng.standard_normal(layer.shape, np.float32)
    full[full == 0] = 1
    rows, ways = [], {"tensorflow": bench.dense(full)}
    if "torch" in rivals.names and data_format == "NHWC":
        rivals.make("torch", full, _BATCH.value, layer)
        ways["torch"] = None
    errors = []
    for k, (mask, _) in enumerate(masks):
        w = full * mask
        ways[k] = bench.ours(w)
        errors.append(bench.error(ways[k], bench.dense(w)))
    torch_ms = []
    if "torch" in ways:
        del ways["torch"]
        ways["torch"] = lambda: torch_ms.append(rivals.run("torch"))
    ms = medians(ways, _ROUNDS.value)
    dense = {"tensorflow": ms["tensorflow"] / bench.calls}
    if torch_ms:
        dense["torch"] = float(np.median(torch_ms[1:]))
    for k, (mask, more) in enumerate(masks):
        entries = {"error": errors[k], **more}
        if prepare and _BATCH.value > 1:
            entries["prepare_ms"], entries["values_ms"] = bench.preparation(
                full * mask
            )
        row = _row(layer, mask, ms[k] / bench.calls, dense, peak, **entries)
        if "reduction" in row:
            row["of_reduction"] = row["speed_up"] / row["reduction"]
        _print(row)
        rows.append(row)
    return rows


def _unstructured(peak, rivals, rng, data_format="NHWC"):
    layers = (
        cases.ALEXNET
        + cases.RESNET_3X3
        + cases.RESNET_STRIDE
        + cases.RESNET_1X1
    )
    rows = []
    for layer in _layers(layers):
        masks = [
            (cases.random_mask(layer, float(s), rng), {})
            for s in _SPARSITIES.value
        ]
        rows += _measure(layer, masks, peak, rivals, rng, data_format)
    return rows


def _structured(peak, rivals, rng):
    by_layer = {}

    def add(layer, mask, **more):
        more["reduction"] = float(1 / mask.mean())
        by_layer.setdefault(layer, []).append((mask, more))

    for layer in cases.ALEXNET + cases.RESNET_3X3 + cases.RESNET_1X1:
        for dead in (0.5, 0.75):
            mask = cases.columns_mask(layer, dead, 0, rng)
            add(layer, mask, pattern="columns")
        for filters, channels in ((16, 1), (8, 8)):
            mask = cases.blocks_mask(layer, filters, channels, 0.9, rng)
            add(layer, mask, pattern=f"block{filters}x{channels}")
    for layer, columns, rows, talk in cases.TALK:
        mask = cases.columns_mask(layer, columns, rows, rng)
        add(layer, mask, pattern="talk", talk=talk)
    for name, layer, filters, weights in cases.LENET:
        mask = cases.shapes_mask(layer, filters, weights, rng)
        add(layer, mask, pattern=name)
    rows = []
    for layer, masks in by_layer.items():
        if layer in _layers([layer]):
            rows += _measure(layer, masks, peak, rivals, rng, prepare=False)
    talk = [r for r in rows if r["pattern"] == "talk"]
    if len(talk) == len(cases.TALK):
        mean = np.mean([r["speed_up"] for r in talk])
        print(f"mean of the talk's layers: {mean:.2f}x (the talk: 5.1x)")
    return rows


def _plan(peak, rivals, rng):
    """What runs without being told which kernel."""
    del rivals
    rows = []
    layers = (
        cases.ALEXNET
        + cases.OTHERS
        + cases.RESNET_3X3
        + cases.RESNET_STRIDE
        + cases.RESNET_1X1
        + cases.MOBILENET_V2
    )
    for layer in _layers(layers):
        bench = Bench(layer, _BATCH.value, rng)
        full = rng.standard_normal(layer.shape, np.float32)
        masks = {
            s: cases.random_mask(layer, float(s), rng)
            for s in _SPARSITIES.value
        }
        ways = {"tensorflow": bench.dense(full)}
        shape = bench.inputs[0].shape
        plans = {}
        for s, mask in masks.items():
            ways[s] = bench.ours(full * mask, "")
            plans[s] = custom_ops.plan(
                custom_ops.SparseKernel.from_dense(full * mask),
                shape,
                layer.stride,
                "SAME",
                groups=layer.groups,
            )
            if plans[s].use_sparse:
                bench.error(ways[s], bench.dense(full * mask))
            else:  # measured too: what the model gave away
                ways[s, "sparse"] = bench.ours(full * mask)
        ms = medians(ways, _ROUNDS.value)
        dense = ms["tensorflow"] / bench.calls
        for s, mask in masks.items():
            plan = plans[s]
            row = _row(
                layer,
                mask,
                ms[s] / bench.calls,
                {"tensorflow": dense},
                peak,
                kernel=plan.kernel,
                modelled_dense_ms=plan.dense_ms,
                modelled_sparse_ms=plan.sparse_ms,
                sparse_ms=ms.get((s, "sparse"), ms[s]) / bench.calls,
            )
            rows.append(row)
            print(
                f"{layer.name:<30} {float(s):4.0%}  {row['speed_up']:5.2f}x by "
                f"{plan.kernel:<10} sparse {row['sparse_ms']:7.3f} (model "
                f"{plan.sparse_ms:7.3f})  dense {dense:7.3f} (model "
                f"{plan.dense_ms:7.3f})",
                flush=True,
            )
    print(f"least: {min(r['speed_up'] for r in rows):.2f}x")
    return rows


def _backward(peak, rivals, rng):
    """Both gradients, of input and of values."""
    del rivals, peak
    rows = []
    for layer in _layers(
        cases.ALEXNET
        + cases.RESNET_3X3
        + cases.RESNET_STRIDE
        + cases.RESNET_1X1
    ):
        if layer.groups > 1:
            continue  # TensorFlow's CPU has no gradient of grouped convolutions
        bench = Bench(layer, _BATCH.value, rng)
        full = rng.standard_normal(layer.shape, np.float32)

        def gradients(one, kernel, bench=bench):
            @tf.function
            def run(*inputs):
                results = []
                for x in inputs:
                    with tf.GradientTape() as tape:
                        tape.watch([x, kernel])
                        y = one(x)
                    results += tape.gradient(y, [x, kernel], y)
                return results

            return lambda: run(*bench.inputs)

        def dense(x, w, stride=layer.stride):
            return tf.nn.conv2d(x, w, stride, "SAME")

        kernel = tf.constant(full)
        ways = {
            "tensorflow": gradients(lambda x, k=kernel: dense(x, k), kernel)
        }
        forward = {"tensorflow": bench.dense(full)}
        arguments = bench.arguments()
        for s in _SPARSITIES.value:
            w = full * cases.random_mask(layer, float(s), rng)
            sparse = custom_ops.SparseKernel.from_dense(w)
            ways[s] = gradients(
                lambda x, k=sparse, a=arguments: custom_ops.sparse_conv2d(
                    x, k, **a
                ),
                sparse.values,
            )
            ours = ways[s]()
            wt = tf.constant(w)
            theirs = gradients(lambda x, k=wt: dense(x, k), wt)()
            for index in range(0, len(ours), 2):
                at = tf.gather(
                    tf.reshape(theirs[index + 1], [-1]), sparse.positions
                )
                for a, b in (
                    (ours[index], theirs[index]),
                    (ours[index + 1], at),
                ):
                    error = tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(
                        tf.abs(b)
                    )
                    if not float(error) <= 1e-4:
                        raise SystemExit(f"{layer.name}: gradients {error:.1e}")
            forward[s] = bench.ours(w)
        ms = medians(
            {**ways, **{("forward", k): f for k, f in forward.items()}},
            _ROUNDS.value,
        )
        base = ms["tensorflow"], ms["forward", "tensorflow"]
        for s in _SPARSITIES.value:
            row = {
                "layer": layer.name,
                "batch": _BATCH.value,
                "zeros": float(s),
                "dense_both_ms": base[0],
                "ours_both_ms": ms[s],
                "dense_forward_ms": base[1],
                "ours_forward_ms": ms["forward", s],
                "speed_up_both": base[0] / ms[s],
                "speed_up_backward": (base[0] - base[1])
                / (ms[s] - ms["forward", s]),
            }
            rows.append(row)
            print(
                f"{layer.name:<24} {float(s):4.0%}  forward and backward "
                f"{row['ours_both_ms']:7.2f} ms, dense {base[0]:7.2f}: "
                f"{row['speed_up_both']:5.2f}x; backward alone "
                f"{row['speed_up_backward']:5.2f}x",
                flush=True,
            )
    return rows


def _rivals(peak, rivals, rng):
    """Sparseprop on its own shape; scipy on 1x1."""
    del peak
    rows = []
    jobs = [
        (cases.SPARSEPROP, 64, n) for n in ("sparseprop", "sparseprop_width")
    ]
    jobs += [(layer, _BATCH.value, "scipy") for layer in cases.RESNET_1X1[4:6]]
    for layer, batch, name in jobs:
        if name not in rivals.names or layer not in _layers([layer]):
            continue
        bench = Bench(layer, batch, rng)
        for s in _SPARSITIES.value:
            w = rng.standard_normal(layer.shape, np.float32)
            w *= cases.random_mask(layer, float(s), rng)
            rivals.make(name, w, batch, layer)
            kernel = custom_ops.SparseKernel.from_dense(w)
            arguments = bench.arguments()

            @tf.function
            def both(x, kernel=kernel, arguments=arguments):
                with tf.GradientTape() as tape:
                    tape.watch([x, kernel.values])
                    y = custom_ops.sparse_conv2d(x, kernel, **arguments)
                return tape.gradient(y, [x, kernel.values], y)

            theirs, theirs_both = [], []
            ways = {
                "ours": bench.ours(w),
                "theirs": lambda n=name, to=theirs: to.append(rivals.run(n)),
            }
            if name != "scipy":
                ways["ours_both"] = lambda f=both, b=bench: f(b.inputs[0])
                ways["theirs_both"] = lambda n=name, to=theirs_both: to.append(
                    rivals.run(n, "both")
                )
            ms = medians(ways, _ROUNDS.value)
            row = {
                "layer": layer.name,
                "batch": batch,
                "zeros": float(s),
                "rival": name,
                "rival_ms": float(np.median(theirs[1:])),
                "ours_ms": ms["ours"],
            }
            row["speed_up"] = row["rival_ms"] / row["ours_ms"]
            text = (
                f"{layer.name:<24} b{batch} {float(s):4.0%}  {name} "
                f"{row['rival_ms']:8.2f} ms, ours {row['ours_ms']:7.2f}: "
                f"{row['speed_up']:5.2f}x"
            )
            if theirs_both:
                row["rival_both_ms"] = float(np.median(theirs_both[1:]))
                row["ours_both_ms"] = ms["ours_both"]
                row["speed_up_both"] = row["rival_both_ms"] / ms["ours_both"]
                text += (
                    f"; forward and backward {row['rival_both_ms']:.2f}, "
                    f"{row['ours_both_ms']:.2f}: {row['speed_up_both']:.2f}x"
                )
            print(text, flush=True)
            rows.append(row)
    return rows


def main(argv):
    del argv
    logging.set_verbosity(logging.ERROR)  # a trace for each kernel
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    peak = peak_gflops(_PEAK.value, _THREADS.value)
    rivals = Rivals(_RIVALS.value, _THREADS.value)
    print(
        f"{_SECTION.value}: {custom_ops.describe()}; TensorFlow "
        f"{tf.__version__}, {_THREADS.value} threads, multiply-add peak "
        f"{peak} GFLOP/s, medians of {_ROUNDS.value} rounds, others: "
        f"{', '.join(rivals.names) or 'none'}",
        flush=True,
    )
    if _SECTION.value == "nchw":
        rows = _unstructured(peak, rivals, rng, "NCHW")
    else:
        rows = globals()[f"_{_SECTION.value}"](peak, rivals, rng)
    if _OUTPUT.value:
        about = {
            "section": _SECTION.value,
            "machine": platform.processor() or platform.machine(),
            "kernels": custom_ops.describe(),
            "tensorflow": tf.__version__,
            "threads": _THREADS.value,
            "rounds": _ROUNDS.value,
            "peak_gflops": peak,
            "rows": rows,
        }
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    app.run(main)
