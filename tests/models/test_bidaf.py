import re

import keras
import numpy as np
import pytest

from models.bidaf import bidaf
from tests.models.outline import num_elements, outline

# (modelling1, modelling2, output) of the paper's tables 3 and 4; what it counts
# as weights, millions.
ROWS = [
    ((100, 100, 100, 100, 100, 100), 2.69),
    ((87, 81, 87, 92, 74, 96), 2.29),
    ((51, 33, 42, 58, 37, 26), 1.18),
    ((20, 33, 40, 38, 31, 16), 0.95),
    ((23, 22, 35, 35, 25, 14), 0.88),
]


def sizes(row):
    return {
        "modelling1": row[:2],
        "modelling2": row[2:4],
        "output": row[4:],
    }


@pytest.mark.parametrize("row, millions", ROWS)
def test_number_of_parameters(row, millions):
    model = outline(bidaf, **sizes(row))
    count = num_elements(model.trainable_variables)
    # The authors keep the 200 rows of the output layers' kernels that read the
    # attention's mean of modelling2 (`AttentionPooling`); here those of removed
    # units go as well.
    kept_there = (200 - sum(row[2:4])) * 4 * sum(row[4:])
    assert round((count + kept_there) / 1e6, 2) == millions


def test_number_of_parameters_without_embeddings():
    variables = outline(bidaf).trainable_variables
    tables = [v for v in variables if v.path.endswith("embeddings")]
    assert [v.shape for v in tables] == [(126, 8), (1180, 100)]
    assert num_elements(variables) - num_elements(tables) == 2_570_703


def test_smallest_row():
    row, _ = ROWS[-1]
    model = outline(bidaf, **sizes(row))
    assert num_elements(model.trainable_variables) == 858_932


OPTIONS = {"vocab_size": 20, "char_vocab_size": 9, "d": 4}


def small(**options):
    return bidaf(**{**OPTIONS, "seed": 1, **options})


def questions(words=20, characters=9, context=7, question=4, seed=0):
    random = np.random.default_rng(seed)
    return {
        "context": random.integers(1, words, (2, context)),
        "context_chars": random.integers(0, characters, (2, context, 16)),
        "question": random.integers(1, words, (2, question)),
        "question_chars": random.integers(0, characters, (2, question, 16)),
    }


def test_inputs_and_outputs():
    model = small()
    assert {k: (v.shape, v.dtype) for k, v in model.input.items()} == {
        "context": ((None, None), "int32"),
        "context_chars": ((None, None, 16), "int32"),
        "question": ((None, None), "int32"),
        "question_chars": ((None, None, 16), "int32"),
    }
    outputs = model(questions())
    assert {k: v.shape.as_list() for k, v in outputs.items()} == {
        "start": [2, 7],
        "end": [2, 7],
    }


def test_padding_changes_nothing():
    model, given = small(), questions()
    padded = {
        key: np.pad(x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2))
        for key, x in given.items()
    }
    # Characters of padding do not matter either.
    padded["context_chars"][:, 7:] = 5
    expected, results = model(given), model(padded)
    for name in ("start", "end"):
        np.testing.assert_allclose(
            results[name][:, :7], expected[name], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(results[name][:, 7:], np.float32(-1e30))


def test_every_input_matters():
    model, given = small(), questions()
    before = model(given)
    for key in given:
        changed = {**given, key: questions(seed=5)[key]}
        after = model(changed)
        assert (before["start"] != after["start"]).numpy().any()
        assert (before["end"] != after["end"]).numpy().any()


def test_given_vectors():
    vectors = np.random.default_rng(2).normal(size=(30, 4)).astype("float32")
    model = small(word_vectors=vectors)
    layer = model.get_layer("words")
    assert layer.embeddings.shape == (20, 4)
    np.testing.assert_array_equal(layer.fixed, vectors)
    assert num_elements(model.trainable_variables) == num_elements(
        small().trainable_variables
    )
    np.testing.assert_array_equal(layer(np.array([20, 49])), vectors[[0, 29]])
    model(questions(words=50))


@pytest.mark.slow
def test_learns(tmp_path):
    keras.utils.set_random_seed(0)
    model, given = small(d=8, dropout=0.1), questions()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(0.03), loss={"start": loss, "end": loss}
    )
    spans = {"start": np.array([2, 5]), "end": np.array([3, 6])}
    model.fit(given, spans, epochs=25, verbose=0)
    outputs = model.predict(given, verbose=0)
    for name, where in spans.items():
        assert outputs[name].argmax(axis=1).tolist() == where.tolist()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.predict(given, verbose=0)
    np.testing.assert_array_equal(again["end"], outputs["end"])


def test_dropout():
    model, given = small(dropout=0.5), questions()
    assert (
        (model(given, training=True)["end"] != model(given)["end"])
        .numpy()
        .any()
    )
    rates = [
        x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)
    ]
    assert rates == [0.5] * 7


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"d": 0},
            "Invalid value for argument d. Expected integers >= 1. "
            "Received: d=0",
        ),
        (
            {"output": (3, 0)},
            "Invalid value for argument output. Expected integers >= 1. "
            "Received: output=(3, 0)",
        ),
        (
            {"modelling1": (3, 2, 1)},
            "Invalid value for argument modelling1. Expected the units of two "
            "layers, forwards and backwards. Received: modelling1=(3, 2, 1)",
        ),
        (
            {"max_word_length": 4},
            "Invalid value for argument max_word_length. Expected at least 5. "
            "Received: max_word_length=4",
        ),
        (
            {"word_vectors": np.zeros((7, 50))},
            "Invalid value for argument word_vectors. Expected vectors of d=4 "
            "numbers. Received: an array of shape (7, 50)",
        ),
        (
            {"dropout": -0.5},
            "Invalid value for argument dropout. Expected a rate in [0, 1). "
            "Received: dropout=-0.5",
        ),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small(**options)
