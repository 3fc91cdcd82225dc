import re

import keras
import numpy as np
import pytest

from models.ptb_lstm import ptb_lstm
from tests.models.outline import num_elements, outline


@pytest.mark.parametrize(
    "options, count",
    [
        ({"size": "small"}, 4_651_600),
        ({"size": "medium"}, 19_775_200),
        ({"size": "large"}, 66_022_000),
        # Table 1 of the paper: 21.8 M, 25.2 M.
        ({"hidden": (373, 315)}, 21_824_148),
        ({"hidden": (381, 535)}, 25_190_548),
    ],
)
def test_number_of_parameters(options, count):
    model = outline(ptb_lstm, **options)
    assert num_elements(model.trainable_variables) == count


def small(**options):
    return ptb_lstm(
        **{"vocab_size": 11, "hidden": (6, 5), "embedding": 4, **options}
    )


@pytest.mark.parametrize(
    "size, scale, dropout",
    [("small", 0.1, 0.0), ("medium", 0.05, 0.5), ("large", 0.04, 0.65)],
)
def test_initial_weights_and_dropout(size, scale, dropout):
    model = small(size=size, hidden=(40, 50), seed=1)
    for variable in model.trainable_variables:
        value = variable.numpy()
        if "lstm_cell/bias" in variable.path:
            assert not value.any()  # of forget gates as well
        else:
            largest = np.abs(value).max()
            assert 0.8 * scale < largest <= scale, variable.path
    for i in range(3):
        assert model.get_layer(f"dropout{i}").rate == dropout
    assert small(size=size, dropout=0.25).get_layer("dropout1").rate == 0.25


NAMES = ("dropout0", "dropout1", "dropout2")


def test_dropout_is_on_what_goes_up_and_fresh_at_each_step():
    model = small(dropout=0.5, hidden=(40, 50), embedding=30)
    words = np.full([2, 6], 3, "int32")
    probe = keras.Model(
        model.input,
        {name: model.get_layer(name).output for name in NAMES},
    )
    seen = probe(words, training=True)
    for name in NAMES:
        zero = seen[name].numpy() == 0
        assert 0.3 < zero.mean() < 0.7
        assert (zero[:, 1:] != zero[:, :1]).any(axis=-1).all()
    for layer in (model.get_layer("lstm1"), model.get_layer("lstm2")):
        assert layer.dropout == layer.recurrent_dropout == 0


def test_states_go_from_batch_to_batch():
    model = small(seed=1)
    carrying = small(seed=2, stateful=True, batch_size=2)
    carrying.set_weights(model.get_weights())
    words = np.random.default_rng(0).integers(0, 11, [2, 9]).astype("int32")
    whole = model.predict(words, verbose=0)
    for _ in range(2):
        parts = [
            carrying.predict_on_batch(words[:, :4]),
            carrying.predict_on_batch(words[:, 4:]),
        ]
        np.testing.assert_allclose(
            np.concatenate(parts, axis=1), whole, atol=1e-6
        )
        carrying.get_layer("lstm1").reset_state()
        carrying.get_layer("lstm2").reset_state()


def test_saving(tmp_path):
    model = small()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    words = np.array([[1, 10, 3, 0]])
    np.testing.assert_array_equal(model(words), loaded(words))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"size": "huge"},
            "Invalid value for argument size. Expected one of {'small', "
            "'medium', 'large'}. Received: size='huge'",
        ),
        (
            {"hidden": (5,)},
            "Invalid value for argument hidden. Expected the units of two "
            "layers. Received: hidden=(5,)",
        ),
        (
            {"hidden": (5, 0)},
            "Invalid value for argument hidden. Expected integers >= 1. "
            "Received: hidden=(5, 0)",
        ),
        (
            {"vocab_size": 0},
            "Invalid value for argument vocab_size. Expected integers >= 1. "
            "Received: vocab_size=0",
        ),
        (
            {"dropout": 1.0},
            "Invalid value for argument dropout. Expected a rate in [0, 1). "
            "Received: dropout=1.0",
        ),
        (
            {"stateful": True},
            "Invalid value for argument batch_size. Expected an integer, as a "
            "stateful model keeps a state for each row of a batch. Received: "
            "batch_size=None",
        ),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small(**options)
