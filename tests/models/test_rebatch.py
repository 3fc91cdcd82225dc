"""Tests of models/rebatch.py."""

import keras
import numpy as np
import pytest

import models
from models.rebatch import rebatch

OPTIONS = {
    "ptb_lstm": {"hidden": (3, 4), "embedding": 5},
    "rhn": {"width": 4, "depth": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_weights(name, tmp_path):
    options = {"vocab_size": 7, "stateful": True, "batch_size": 2}
    model = models.build(name, **options, **OPTIONS[name], seed=1)
    model.save(tmp_path / "model.keras")
    # Layers made by now must not matter to the names of variables.
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    words = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    expected = model(words).numpy()
    for each in (model, again):
        free = rebatch(each, None, stateful=False)
        for rows in (2, 1):
            np.testing.assert_allclose(
                free(words[:rows]).numpy(),
                expected[:rows],
                rtol=1e-5,
                atol=1e-5 * np.abs(expected).max(),
            )
