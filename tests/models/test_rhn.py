import re

import keras
import numpy as np
import pytest

from models.rhn import rhn
from tests.models.outline import num_elements, outline


@pytest.mark.parametrize(
    "width, count",
    # Table 2 of the paper: 23.5, 18.9, 11.1, 7.6 and 5.7 M.
    [
        (830, 23_482_400),
        (726, 18_880_192),
        (517, 11_070_698),
        (403, 7_621_058),
        (328, 5_663_408),
    ],
)
def test_number_of_parameters(width, count):
    model = outline(rhn, width=width)
    assert num_elements(model.trainable_variables) == count


def small(**options):
    return rhn(**{"vocab_size": 11, "width": 6, "depth": 3, **options})


def test_table_is_tied():
    paths = [v.path for v in small().trainable_variables]
    assert [p for p in paths if p.startswith("embedding")] == [
        "embedding/embeddings",
        "embedding/bias",
    ]
    assert len(paths) == 2 + 1 + 2 * 3


def test_initial_weights():
    for variable in small(width=40, seed=3).trainable_variables:
        value = variable.numpy()
        if "bias" not in variable.path:
            assert 0.03 < np.abs(value).max() <= 0.04, variable.path
        elif variable.path.startswith("rhn"):
            assert value.tolist() == [0.0] * 40 + [-2.0] * 40


def test_rates_of_dropout():
    model = small(
        word_dropout=0.1,
        input_dropout=0.2,
        recurrent_dropout=0.3,
        output_dropout=0.4,
    )
    assert model.get_layer("word_dropout").rate == 0.1
    assert model.get_layer("rhn").dropout == 0.2
    assert model.get_layer("rhn").recurrent_dropout == 0.3
    assert model.get_layer("output_dropout").rate == 0.4
    words = np.array([[1, 10, 3, 0]])
    assert (model(words, training=True) != model(words)).numpy().any()
    np.testing.assert_array_equal(model(words), model(words))


def test_states_go_from_batch_to_batch():
    model = small(seed=1)
    carrying = small(seed=2, stateful=True, batch_size=2)
    for old, new in zip(
        model.trainable_variables, carrying.trainable_variables, strict=True
    ):
        new.assign(old)
    words = np.random.default_rng(0).integers(0, 11, [2, 9]).astype("int32")
    parts = [
        carrying.predict_on_batch(words[:, :4]),
        carrying.predict_on_batch(words[:, 4:]),
    ]
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), model(words), atol=1e-6
    )


def test_saving(tmp_path):
    model = small()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    words = np.array([[1, 10, 3, 0]])
    np.testing.assert_array_equal(model(words), loaded(words))


@pytest.mark.parametrize("name", ["vocab_size", "width", "depth"])
def test_sizes(name):
    message = (
        f"Invalid value for argument {name}. Expected integers >= 1. "
        f"Received: {name}=0"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small(**{name: 0})


@pytest.mark.parametrize("kind", ["word", "input", "recurrent", "output"])
def test_dropout(kind):
    message = (
        f"Invalid value for argument {kind}_dropout. Expected a rate in "
        f"[0, 1). Received: {kind}_dropout=1.5"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small(**{f"{kind}_dropout": 1.5})


def test_stateful_needs_a_batch_size():
    with pytest.raises(ValueError) as error:
        small(stateful=True)
    assert str(error.value) == (
        "Invalid value for argument batch_size. Expected an integer, as a "
        "stateful model keeps a state for each row of a batch. Received: "
        "batch_size=None"
    )
