"""Diagnostics: measures against NumPy; the callback disturbs nothing; plots."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import tf_terngrad as tg
import train
from tests import fake_images
from tf_terngrad.diagnostics import __main__ as program
from tf_terngrad.diagnostics import measure, plot, records

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = RNG.normal(size=(64, 1)).astype(np.float32)


def _gradients(*shapes, num_workers=2, dtype=np.float32):
    rng = np.random.default_rng(1)
    return [
        [rng.standard_t(3, size=shape).astype(dtype) for shape in shapes]
        for _ in range(num_workers)
    ]


def _dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def _model(optimizer=None):
    """Dropout, moving statistics, a penalty: all that could be disturbed."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, name="hidden", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, seed=3),
            keras.layers.Dense(1, name="logits"),
        ]
    )
    model.compile(
        optimizer
        or tg.DistributedOptimizer(
            keras.optimizers.SGD(0.01, momentum=0.9), tg.TernGrad()
        ),
        "mse",
        metrics=["mae"],
        jit_compile=False,
    )
    return model


def _fit(model, *callbacks, epochs=2, **arguments):
    return model.fit(
        X,
        Y,
        16,
        epochs,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
        **arguments,
    ).history


def _diagnostics(directory, **arguments):
    arguments = {"every": 3} | arguments
    return tg.callbacks.GradientDiagnostics(directory, _dataset(), **arguments)


def _steps(directory):
    return [int(record["step"]) for record in records.read(directory)]


# --- Measures


def test_bounds_of_hand_made_gradients():
    # Of 64 elements 63 are +-1 and one is 31: mean 0.5 (signs chosen so),
    # hence sigma^2 = (63 + 961) / 64 - 0.25 = 15.75.
    large = np.ones(64)
    large[:31] = -1.0
    large[63] = 31.0
    small = np.array([2.0, -4.0])
    level = 2.5 * np.sqrt(15.75)
    first, second = measure.bounds([[large, small]], 2.5, bucket_size=32).T
    np.testing.assert_allclose(
        first,
        [
            63 + 961,
            31 * (63 + 31),
            31 * (63 + 31),
            1 * 32 + 31 * (31 + 31),
            level * (63 + level),
            1 * 32 + level * (31 + level),
        ],
        rtol=1e-14,
    )
    # Fewer than 32 elements: not clipped.
    np.testing.assert_allclose(second, [20, 31 * 6, 24, 24, 24, 24])


def test_bounds_are_means_over_workers_and_squares_of_ternary_gradients():
    gradients = _gradients((40, 50), (7,), num_workers=3)
    got = measure.bounds(gradients, 2.5, 64)
    assert got.shape == (len(measure.BOUNDS), 2)
    for v in range(2):
        wide = [local[v].astype(np.float64).ravel() for local in gradients]
        np.testing.assert_allclose(got[0, v], np.mean([g @ g for g in wide]))
        np.testing.assert_allclose(
            got[2, v], np.mean([abs(g).max() * abs(g).sum() for g in wide])
        )
        # E ||ternarize(g)||^2 = s^2 * sum of P(not 0)
        buckets = [np.split(abs(g), range(64, g.size, 64)) for g in wide]
        np.testing.assert_allclose(
            got[3, v],
            np.mean(
                [
                    sum(b.max() ** 2 * (b / b.max()).sum() for b in worker)
                    for worker in buckets
                ]
            ),
        )
    standard, one_scaler, layer, bucketed, clipped, both = got.sum(axis=1)
    assert standard < bucketed < layer < one_scaler
    assert both <= clipped < layer


@pytest.mark.parametrize("size", [1, 31])
def test_clipping_leaves_small_tensors_alone(size):
    gradient = np.zeros(size)
    gradient[0] = 1e3
    np.testing.assert_array_equal(measure.clip(gradient, 2.5), gradient)
    assert measure.clip(np.append(gradient, np.zeros(32)), 2.5)[0] < 1e3


def test_length_and_angle_against_numpy():
    before = RNG.normal(size=200)
    after = measure.clip(before, 1.0)
    products = measure.inner_products(before, after)
    norms = np.linalg.norm(before), np.linalg.norm(after)
    assert measure.length_ratio(products) == pytest.approx(norms[1] / norms[0])
    assert measure.angle(products) == pytest.approx(
        np.degrees(np.arccos(before @ after / (norms[0] * norms[1])))
    )
    same = measure.inner_products(before, before)
    assert (measure.length_ratio(same), measure.angle(same)) == (1.0, 0.0)
    zero = measure.inner_products(np.zeros(3), np.zeros(3))
    assert (measure.length_ratio(zero), measure.angle(zero)) == (1.0, 0.0)


def test_histogram_counts_all_finite_values():
    values = RNG.normal(size=1000).astype(np.float32)
    counts, limit = measure.histogram(values)
    assert limit == np.abs(values).max()
    assert counts.sum() == 1000
    edges = np.linspace(-limit, limit, measure.NUM_BINS + 1)
    expected, _ = np.histogram(values.astype(np.float64), edges)
    assert np.abs(counts - expected).sum() <= 2  # rounding at edges
    counts, limit = measure.histogram(np.array([np.nan, np.inf, 0.0]))
    assert (counts.sum(), counts[measure.NUM_BINS // 2], limit) == (1, 1, 1.0)
    tiny = np.array([1e-310, -1e-310, 0.0])
    assert measure.histogram(tiny)[0].sum() == 3


@pytest.mark.parametrize("num_workers", [1, 2, 3])
@pytest.mark.parametrize("bucket_size", [None, 100])
@pytest.mark.parametrize("clip_mode", ["own", "shared"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_are_those_of_the_exchange(
    num_workers, bucket_size, clip_mode, dtype
):
    gradients = _gradients((30, 11), (5,), num_workers=num_workers, dtype=dtype)
    compression = tg.TernGrad(
        bucket_size=bucket_size, clip_mode=clip_mode, seed=5
    )
    expected = tg.exchange(
        [[tf.constant(g) for g in local] for local in gradients],
        [tf.Variable(g) for g in gradients[0]],
        compression,
        step=tf.constant(7, tf.int64),
        workers=tg.LocalWorkers(num_workers),
    )
    for v in range(2):
        levels, scalers = measure.ternary_levels(
            [local[v] for local in gradients], compression, 7, v
        )
        assert levels.shape == (num_workers, gradients[0][v].size)
        assert set(np.unique(levels)) <= {-1, 0, 1}
        total = levels.sum(axis=0)
        values = measure.ternary_values(
            total, scalers, num_workers, bucket_size
        )
        np.testing.assert_array_equal(values, expected[v].numpy().ravel())
        counts = measure.level_counts(total, num_workers)
        assert counts.shape == (2 * num_workers + 1,)
        assert counts.sum() == total.size
        if bucket_size is None:
            assert len(np.unique(values)) <= 2 * num_workers + 1


def test_record_of_gradients():
    gradients = _gradients((40, 50), (7,), num_workers=3)
    record = records.make(gradients, ["a", "b"], [0, 1], tg.TernGrad(), 12)
    assert record["average_levels"].shape == (2, 7)
    assert record["ternary_levels"].sum(axis=1).tolist() == [2000, 7]
    for kind in records.KINDS:
        assert record[f"{kind}_counts"].sum(axis=1).tolist() == [2000, 7]
    wide = [local[0].astype(np.float64) for local in gradients]
    np.testing.assert_allclose(
        record["sigma"][0], np.mean([g.std() for g in wide])
    )
    np.testing.assert_allclose(
        record["scaler"][0], max(2.5 * g.std() for g in wide), rtol=1e-6
    )
    zeros = record["average_levels"][0, 3] / 2000
    assert record["average_zero_fraction"][0] == pytest.approx(zeros)
    assert 0 < record["average_zero_fraction"][0] < record["zero_fraction"][0]
    np.testing.assert_array_equal(record["length_ratio"] < 1, [True, False])
    np.testing.assert_array_equal(record["angle"] > 0, [True, False])
    assert record["length_ratio"][0] < record["total_length_ratio"] < 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_record_of_gradients_that_are_not_finite(bad, tmp_path):
    gradients = _gradients((40, 50), (7,))
    gradients[0][0][1, 2] = bad
    record = records.make(gradients, ["a", "b"], [0, 1], tg.TernGrad(), 0)
    assert np.isinf(record["scaler"][0]) and np.isfinite(record["scaler"][1])
    assert record["float_counts"][0].sum() == 1999
    assert record["average_counts"][0].sum() == 0
    records.write(tmp_path, record)
    plot.draw(records.read(tmp_path), tmp_path)


# --- Callback


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_training_is_the_same_with_and_without(tmp_path, optimizer):
    plain, watched = _model(optimizer), _model(optimizer)
    expected = _fit(plain)
    history = _fit(
        watched, _diagnostics(tmp_path / "d", log_dir=tmp_path / "logs")
    )
    assert history == expected
    state = [v.numpy() for v in plain.variables + plain.optimizer.variables]
    same = [v.numpy() for v in watched.variables + watched.optimizer.variables]
    assert any("seed_generator" in v.path for v in plain.variables)
    for a, b in zip(state, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert _steps(tmp_path / "d") == [0, 3, 6]
    [record, *_] = records.read(tmp_path / "d")
    assert record["names"].tolist() == [
        "hidden/kernel",
        "hidden/bias",
        "norm/gamma",
        "norm/beta",
        "logits/kernel",
        "logits/bias",
    ]
    assert (record["float_limit"] > 0).all()


def test_gradients_are_those_of_the_compiled_loss(tmp_path):
    model = _model()
    model.layers[2].rate = 0.0  # no dropout: nothing random is left
    _fit(model, _diagnostics(tmp_path), epochs=1)
    fresh = _model()
    fresh.layers[2].rate = 0.0
    bounds = []
    for i in range(2):
        with tf.GradientTape() as tape:
            part = slice(16 * i, 16 * i + 16)
            loss = tf.reduce_mean(
                (fresh(X[part], training=True) - Y[part]) ** 2
            )
            loss += 0.01 * tf.reduce_sum(fresh.layers[0].kernel ** 2)
        gradients = tape.gradient(loss, fresh.trainable_variables)
        bounds.append([float(tf.reduce_sum(g**2)) for g in gradients])
    [record, *_] = records.read(tmp_path)
    np.testing.assert_allclose(
        record["bounds"][0], np.mean(bounds, axis=0), rtol=1e-4, atol=1e-10
    )


def test_resumed_run_equals_uninterrupted_run(tmp_path):
    _fit(_model(), _diagnostics(tmp_path / "whole"), epochs=3)
    model = _model()
    _fit(model, _diagnostics(tmp_path / "resumed"), epochs=1)
    saved = [v.numpy() for v in model.variables + model.optimizer.variables]
    _fit(model, _diagnostics(tmp_path / "resumed"), epochs=1)
    assert _steps(tmp_path / "resumed") == [0, 3, 6]

    # As if stopped there: back to step 4, whose later records are dropped.
    model = _model()
    model.optimizer.build(model.trainable_variables)
    state = model.variables + model.optimizer.variables
    for variable, value in zip(state, saved, strict=True):
        variable.assign(value)
    again = _diagnostics(tmp_path / "resumed")
    _fit(model, again, epochs=3, initial_epoch=1)
    whole = records.read(tmp_path / "whole")
    resumed = records.read(tmp_path / "resumed")
    assert [int(r["step"]) for r in resumed] == [0, 3, 6, 9, 12]
    for a, b in zip(whole, resumed, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_later_records_are_removed_when_an_earlier_run_starts_again(tmp_path):
    _fit(_model(), _diagnostics(tmp_path, every=2), epochs=2)
    assert _steps(tmp_path) == [0, 2, 4, 6, 8]
    _fit(_model(), _diagnostics(tmp_path, every=2, first_step=5), epochs=1)
    assert _steps(tmp_path) == [0, 2, 4, 6, 8]
    _fit(_model(), _diagnostics(tmp_path, every=4), epochs=1)
    assert _steps(tmp_path) == [0, 4]


def test_several_steps_per_execution(tmp_path):
    model = _model()
    model.steps_per_execution = 2
    _fit(model, _diagnostics(tmp_path, every=1), epochs=1)
    assert _steps(tmp_path) == [0, 2, 4]


def test_workers_other_than_the_first_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tg.collectives, "rank", lambda: 1)
    callback = _diagnostics(tmp_path / "d")
    callback.set_model(_model())
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(2)
    callback.on_train_end()
    assert not (tmp_path / "d").exists()


def test_summaries_though_another_callback_turned_them_off(tmp_path):
    with tf.summary.record_if(False):
        _fit(_model(), _diagnostics(tmp_path, log_dir=tmp_path / "logs"))
    [events] = (tmp_path / "logs").iterdir()
    tags = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append(
                (event.step, tf.make_ndarray(value.tensor))
            )
    [record, *_] = records.read(tmp_path)
    assert [step for step, _ in tags["bounds/standard"]] == [0, 3, 6]
    step, rows = tags["gradients_average/hidden/kernel"][0]
    assert rows.shape == (measure.NUM_BINS, 3)
    np.testing.assert_array_equal(rows[:, 2], record["average_counts"][0])
    np.testing.assert_allclose(rows[-1, 1], record["average_limit"][0])


@pytest.mark.parametrize(
    "argument", [{"num_workers": 0}, {"every": 0}, {"first_step": -1}]
)
def test_arguments(argument, tmp_path):
    [(name, value)] = argument.items()
    with pytest.raises(ValueError) as error:
        _diagnostics(tmp_path, **argument)
    least = 0 if name == "first_step" else 1
    assert str(error.value) == (
        f"Invalid value for argument {name}. Expected an integer >= {least}. "
        f"Received: {name}={value}"
    )


def test_too_few_batches(tmp_path):
    with pytest.raises(ValueError) as error:
        tg.callbacks.GradientDiagnostics(tmp_path, [(X[:2], Y[:2])])
    assert str(error.value) == (
        "Invalid value for argument batches. Expected 2 batches of the same "
        "shapes, one for each virtual worker. Received: 1 batches of shapes "
        "[[(2, 6), (2, 1)]]"
    )


@pytest.mark.slow
def test_flag_of_train_py(tmp_path):
    options = flags.FlagValues()
    train.define_flags(options)
    options(
        [
            "train.py",
            f"--workdir={tmp_path / 'run'}",
            f"--data_dir={fake_images.prepare(tmp_path / 'data')}",
            "--dataset=fake_images",
            "--batch_size=10",
            "--model=mlp",
            "--steps=9",
            "--diagnostics_every=4",
        ]
    )
    train.train(options)
    assert _steps(tmp_path / "run" / "diagnostics") == [0, 4, 8]
    assert any((tmp_path / "run" / "logs" / "diagnostics").iterdir())


# --- Program


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "diagnostics"
    directory.mkdir()
    for step in (0, 5):
        record = records.make(
            _gradients(*[(40,), (3,)] * 4),
            [
                f"layer{i // 2}/{'bias' if i % 2 else 'kernel'}"
                for i in range(8)
            ],
            list(range(8)),
            tg.TernGrad(bucket_size=16),
            step,
        )
        records.write(directory, record)
    return tmp_path


def test_program_draws_pictures(run, capsys):
    program.main([f"--workdir={run}", f"--output={run / 'png'}", "--step=0"])
    paths = capsys.readouterr().out.splitlines()
    assert [p.removeprefix(f"{run}/png/") for p in paths] == [
        "histograms_1.png",
        "histograms_2.png",
        "zero_fraction.png",
        "clipping_length.png",
        "clipping_angle.png",
        "bounds.png",
        "bounds_per_variable.png",
    ]
    for path in paths:
        with open(path, "rb") as stream:
            assert stream.read(8) == b"\x89PNG\r\n\x1a\n"


def _message(*arguments):
    with pytest.raises(SystemExit) as error:
        program.main([str(a) for a in arguments])
    return str(error.value)


def test_program_without_diagnostics(tmp_path):
    assert _message("--workdir", tmp_path) == (
        f"diagnostics: {tmp_path} holds no diagnostics. Train with train.py "
        "--diagnostics_every=500, or with the callback "
        f"tg.callbacks.GradientDiagnostics('{tmp_path}/diagnostics', batches)."
    )


def test_program_with_another_step(run):
    assert _message("--workdir", run, "--step=3") == (
        "diagnostics: Invalid value for argument step. Expected one of [0, 5]. "
        "Received: step=3"
    )


def test_program_with_broken_and_foreign_records(run):
    path = run / "diagnostics" / "step-00000005.npz"
    foreign = records.make(_gradients((3,)), ["x"], [0], tg.TernGrad(), 5)
    records.write(run / "diagnostics", foreign)
    assert _message("--workdir", run) == (
        f"diagnostics: {path} is of another model than the records before it. "
        "Remove those that do not belong to the run."
    )
    path.write_bytes(path.read_bytes()[:100])
    assert _message("--workdir", run) == (
        f"diagnostics: {path} is no record: File is not a zip file"
    )


def test_program_without_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert _message("--workdir", run) == (
        "diagnostics: Plots need Matplotlib: pip install matplotlib"
    )
