"""train.py and eval.py with language models and with questions."""

import math
import re

import keras
import numpy as np
import pytest

import train
from models.rebatch import rebatch, reset_states
from models.run import metrics_log
from tests import fake_text
from tests.test_eval import evaluate
from tests.test_train import exit_message, interrupt_after, options_of, weights


@pytest.fixture(autouse=True)
def forget_models():
    yield
    keras.utils.clear_session()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return fake_text.write(tmp_path_factory.mktemp("data") / "text.txt", 300)


def start(workdir, text, *arguments):
    train.train(
        options_of(
            f"--workdir={workdir}",
            f"--data_dir={text}",
            "--compression=none",
            "--epochs=2",
            *arguments,
        )
    )
    return workdir


LSTM = (
    "--model=ptb_lstm",
    "--dataset=words",
    "--size=small",
    "--hidden=12,9",
    "--embedding=7",
    "--num_steps=5",
    "--batch_size=4",
    "--optimizer=sgd",
    "--learning_rate=0.5",
    "--global_clipnorm=5",
)
ISS = ("--iss_strength=0.05", "--threshold=0.002", "--dropout=0.1")


@pytest.mark.slow
def test_language_model(text, tmp_path, monkeypatch, capsys):
    whole = start(tmp_path / "whole", text, *LSTM, *ISS)
    out = capsys.readouterr().out
    assert re.search(
        r"^data +text.txt, [\d,]+ training words \(0 unknown\), ", out, re.M
    )
    assert re.search(
        r"^workers +1, 20 words each a step, 20 in all$", out, re.M
    )
    assert re.search(
        r"^epoch 2/2  perplexity [\d.]+  val_perplexity [\d.]+ .* words/s .*"
        r" \d+-\d+ units$",
        out,
        re.M,
    )
    entries = metrics_log.read(whole / "metrics.jsonl")
    for entry in entries:
        for prefix in ("", "val_"):
            assert entry[f"{prefix}perplexity"] == pytest.approx(
                math.exp(entry[f"{prefix}cross_entropy"])
            )
        # The loss is the sum of five steps; the penalty is no part of either.
        assert entry["loss"] == pytest.approx(
            5 * entry["cross_entropy"], rel=1e-4
        )
        assert entry["group_lasso"] > 0
    assert entries[1]["units_lstm1"] < 12

    # Killed and started again: the same weights.
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", text, *LSTM, *ISS)
    again = start(tmp_path / "run", text, *LSTM, *ISS)
    for a, b in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)

    # Every word of the test in one row: what the definition says.
    capsys.readouterr()
    found = evaluate(f"--workdir={whole}", "--shrink")
    out = capsys.readouterr().out
    assert "lstm1/units: 12 -> " in out
    assert "whole model, batch 10" in out and "whole model, batch 1," in out
    task = train.tasks.open_task(train.read_flags(whole))
    model = keras.saving.load_model(whole / "model.keras", compile=False)
    ids = task.data.ids("test")
    logits = rebatch(model, None, stateful=False).predict(
        ids[None, :-1], verbose=0
    )[0]
    losses = keras.ops.sparse_categorical_crossentropy(
        ids[1:], logits, from_logits=True
    )
    assert found["test_perplexity"] == pytest.approx(
        math.exp(np.mean(losses)), rel=1e-4
    )


@pytest.mark.slow
def test_mean_over_steps_converts_the_strength(text, tmp_path, capsys):
    arguments = [a for a in LSTM if "rate" not in a and "clipnorm" not in a]
    total = start(
        tmp_path / "sum",
        text,
        *arguments,
        "--learning_rate=0.1",
        "--iss_strength=0.05",
    )
    mean = start(
        tmp_path / "mean",
        text,
        *arguments,
        "--learning_rate=0.5",
        "--iss_strength=0.05",
        "--loss_over_steps=mean",
    )
    out = capsys.readouterr().out
    assert "sparsity     ISS:0.05, threshold 0.0001\n" in out
    assert (
        "sparsity     ISS:0.05 (0.01 of the mean over steps), threshold 0.0001"
    ) in out
    for a, b in zip(weights(total), weights(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_state_is_carried_and_reset():
    words = keras.Input((None,), batch_size=2, dtype="int32")
    x = keras.layers.Embedding(5, 3)(words)
    x = keras.layers.LSTM(4, return_sequences=True, stateful=True)(x)
    model = keras.Model(words, keras.layers.Dense(5)(x))
    ids = np.array([[1, 2, 3, 4], [4, 3, 2, 1]])
    free = rebatch(model, None, stateful=False)
    want = free.predict_on_batch(ids)
    for _ in range(2):
        reset_states(model)
        got = [model.predict_on_batch(ids[:, i : i + 2]) for i in (0, 2)]
        np.testing.assert_allclose(
            np.concatenate(got, axis=1), want, rtol=1e-5, atol=1e-6
        )
    assert np.abs(model.predict_on_batch(ids[:, :2]) - want[:, :2]).max() > 1e-4


BIDAF = (
    "--model=bidaf",
    "--dataset=cloze",
    "--num_questions=60",
    "--d=6",
    "--batch_size=8",
    "--eval_batch_size=5",
    "--optimizer=adam",
    "--learning_rate=0.01",
)


@pytest.mark.slow
def test_questions(text, tmp_path, capsys):
    workdir = start(
        tmp_path / "run",
        text,
        *BIDAF,
        "--ema=0.5",
        "--iss_strength=0.1",
        "--iss_exclude=contextual*",
        "--threshold=0.01",
    )
    out = capsys.readouterr().out
    assert re.search(
        r"^data +cloze, 48 training and 12 test questions, ", out, re.M
    )
    assert "ISS:0.1 without contextual*" in out
    entries = metrics_log.read(workdir / "metrics.jsonl")
    counts = [key for key in entries[-1] if key.startswith("units_")]
    assert len(counts) == 6
    # The saved weights are the averages, and the last epoch was scored so.
    found = evaluate(f"--workdir={workdir}")
    for key, value in found.items():
        assert value == pytest.approx(entries[-1][f"val_{key}"], rel=1e-4)
    out = capsys.readouterr().out
    assert (
        f"exact match  {found['exact_match']:.2f} (a guess among names: "
        in (out)
    )
    # Averages of weights are thresholded again.
    kernel = keras.saving.load_model(workdir / "model.keras").get_layer(
        "output_forward"
    )
    values = np.abs(keras.ops.convert_to_numpy(kernel.cell.recurrent_kernel))
    assert (values == 0).mean() > 0.05
    assert not ((values > 0) & (values < 0.01)).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            [*LSTM, "--dataset=mnist"],
            "Invalid value for flag --dataset. Expected words for "
            "--model=ptb_lstm, which reads words. Received: mnist",
        ),
        (
            [*BIDAF, "--dataset=words"],
            "Invalid value for flag --dataset. Expected squad or cloze for "
            "--model=bidaf, which reads questions. Received: words",
        ),
        (
            [*LSTM, "--virtual_workers=2"],
            "Invalid value for flag --virtual_workers. Expected 1 for "
            "--model=ptb_lstm, whose state goes from batch to batch. "
            "Received: 2",
        ),
        (
            [*LSTM, "--width=5"],
            "Invalid option for model 'ptb_lstm'. Expected one of "
            "{'vocab_size', 'size', 'hidden', 'embedding', 'dropout', "
            "'stateful', 'batch_size', 'seed'}. Received: 'width'",
        ),
        (
            [*LSTM, "--iss_strength=0.1", "--iss_exclude=gru*"],
            "Invalid value for argument exclude. Expected patterns that match "
            "a structure. Received: exclude='gru*'. Structures: "
            "embedding/embedding, lstm1/units, lstm2/units",
        ),
        (
            [*BIDAF, "--num_questions=5000"],
            "Invalid value for argument sentences. Expected a text with names "
            "for 5000 questions. Received: 300 sentences, which give 540",
        ),
    ],
)
def test_what_does_not_fit(text, tmp_path, arguments, message):
    assert exit_message(lambda: start(tmp_path / "run", text, *arguments)) == (
        f"train.py: {message}"
    )


def test_text_too_short(text, tmp_path):
    message = exit_message(
        lambda: start(tmp_path / "run", text, *LSTM, "--batch_size=500")
    )
    assert message.startswith(
        "train.py: Invalid value for argument batch_size. Expected 1 to "
    )


@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "--hidden=3,x",
            "flag --hidden=['3', 'x']: must be numbers of units such as "
            "373,315",
        ),
        ("--ema=1", "flag --ema=1.0: must be in [0, 1)"),
        (
            "--iss_strength=-1",
            "flag --iss_strength=-1: -1.0 is not a non-negative number",
        ),
        (
            "--loss_over_steps=max",
            "flag --loss_over_steps=max: value should be one of <sum|mean>",
        ),
    ],
)
def test_bad_flags(argument, message):
    with pytest.raises(train.flags.IllegalFlagValueError) as error:
        options_of("--workdir=x", "--epochs=1", argument)
    assert str(error.value) == message
