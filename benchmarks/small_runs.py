"""What the benchmarks that train small networks share.

Results are JSON files, one a run: what is there is not done again, so that a
killed benchmark goes on where it was.
"""

import json
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from absl import app, flags

import models
import tf_ssl

ROOT = pathlib.Path(__file__).resolve().parents[1]


def define_flags(output: str) -> None:
    """Defines the flags that all of them have.

    Args:
      output: folder below docs/results.
    """
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
    flags.DEFINE_string(
        "output", str(ROOT / "docs/results" / output), "For the results."
    )
    flags.DEFINE_integer("threads", 1, "TensorFlow's threads.", 1)
    flags.DEFINE_bool("report_only", False, "Write the tables of what is there")


def begin(argv) -> pathlib.Path:
    """Checks the flags, sets threads; returns the folder of results."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    for seed in flags.FLAGS.seeds:
        if not seed.isdecimal():
            raise app.UsageError(
                f"--seeds: Expected integers >= 0. Received: {seed}"
            )
    threading = tf.config.threading
    threading.set_intra_op_parallelism_threads(flags.FLAGS.threads)
    threading.set_inter_op_parallelism_threads(flags.FLAGS.threads)
    folder = pathlib.Path(flags.FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def seeds() -> list[int]:
    """Of --seeds."""
    return [int(seed) for seed in flags.FLAGS.seeds]


def once(folder: pathlib.Path, name: str, run) -> dict | None:
    """What a run has come to; it is done if its file is missing.

    Args:
      folder: of the results; files are in its folder runs.
      name: of the file, without its ending.
      run: function without arguments that returns what JSON can hold.

    Returns:
      The run's dict with its "seconds"; None with --report_only if it is
      missing.
    """
    path = folder / "runs" / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    if flags.FLAGS.report_only:
        return None
    start = time.monotonic()
    found = run()
    found["seconds"] = round(time.monotonic() - start, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(".writing")
    writing.write_text(json.dumps(found) + "\n")
    writing.rename(path)
    print(f"{time.strftime('%H:%M:%S')} {name}: {found}", flush=True)
    return found


def over_seeds(folder: pathlib.Path, of_seed, report) -> None:
    """Does the runs of each seed, reports after each, prints the last report.

    Args:
      folder: of the results.
      of_seed: function of the folder and a seed, to what its runs came to.
      report: function of the folder and a list of these; returns a text.
    """
    results = []
    for seed in seeds():
        results.append(of_seed(folder, seed))
        text = report(folder, results)
    print(text)


def images(
    num_train: int, seed: int, dataset="mnist", data_dir=None, size=None
):
    """Part of a training set, as (images, labels), and its test set.

    Args:
      num_train: training images, drawn by the seed.
      seed: of the draw.
      dataset: see `models.data.load`.
      data_dir: likewise.
      size: height and width of the images; None: as they are.
    """
    data = models.data.load(dataset, data_dir, size and (size, size))
    train, test = data.train(num_train, seed=seed), data.test(data.num_test)
    return tuple(
        tuple(each.numpy() for each in next(iter(part)))
        for part in (train, test)
    )


def fit(model, data, optimizer, batch_size, epochs, seed, **options) -> None:
    """Trains a classifier; `options` are those of `model.fit`."""
    keras.utils.set_random_seed(seed)
    compile_model(model, optimizer)
    x, y = data
    model.fit(x, y, batch_size, epochs, verbose=0, **options)


def compile_model(model, optimizer=None) -> None:
    """For `fit` and `accuracy`."""
    model.compile(
        optimizer or "sgd", loss(), metrics=["accuracy"], jit_compile=False
    )


def loss():
    """Cross entropy of logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cosine(rate, data, batch_size, epochs, **options):
    """SGD with momentum 0.9 and a rate that falls to 0 along a cosine."""
    steps = -(-len(data[0]) // batch_size) * epochs
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, **options)
    return keras.optimizers.SGD(schedule, momentum=0.9)


def accuracy(model, data) -> float:
    """Percent of images that are classified right."""
    compile_model(model)
    share = model.evaluate(*data, batch_size=500, verbose=0)[1]
    return round(100 * share, 2)


def mean_and_spread(values) -> str:
    """Mean and sample standard deviation of two decimals.

    >>> mean_and_spread([1.0, 2.0, 3.0])
    '2.00 ± 1.00'
    """
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.2f} ± {spread:.2f}"


def write_table(folder, title, header, rows, notes=()) -> str:
    """Writes table.md; returns its text.

    Args:
      folder: for the file.
      title: first line.
      header: names of columns.
      rows: lists of cells.
      notes: lines behind the table.
    """
    lines = [f"# {title}", "", f"| {' | '.join(header)} |"]
    lines.append("|---" * len(header) + "|")
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    here = tf_ssl.machine()
    lines += [
        "",
        *notes,
        f"Machine: {here['processor']}, {here['cores']} cores; TensorFlow "
        f"{here['tensorflow']}, {flags.FLAGS.threads} thread(s).",
    ]
    text = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(text)
    return text
