import re

import numpy as np
import pytest

from models.mlp import mlp
from models.ptb_lstm import ptb_lstm
from models.run import load_weights, workdir


def small(**options):
    return mlp(input_shape=(3,), num_classes=2, **options)


def test_weights_of_a_workdir_and_of_a_file(tmp_path):
    source = small(hidden=(4,), dropout=0.5, seed=1)
    workdir.save_model(source, tmp_path / "model.keras")
    for path in (tmp_path, tmp_path / "model.keras", str(tmp_path)):
        # Random streams are the run's own: dropout may differ.
        model = small(hidden=(4,), seed=2)
        assert load_weights(model, path) == tmp_path / "model.keras"
        pairs = zip(
            source.trainable_variables, model.trainable_variables, strict=True
        )
        for theirs, ours in pairs:
            np.testing.assert_array_equal(theirs, ours)


def test_no_file(tmp_path):
    for path, named in (
        (tmp_path, tmp_path / "model.keras"),
        (tmp_path / "x.keras", tmp_path / "x.keras"),
    ):
        message = (
            f"No weights to begin from: no such file: {named}. Expected a "
            ".keras file, or the workdir of a finished run of train.py"
        )
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            load_weights(small(), path)


def test_other_shapes_change_nothing(tmp_path):
    workdir.save_model(small(hidden=(4,)), tmp_path / "model.keras")
    model = small(hidden=(5,), seed=0)
    before = model.get_weights()
    message = (
        f"The weights of {tmp_path}/model.keras do not fit model 'mlp'. "
        "Differing: hidden1/kernel: 3 x 4 there, 3 x 5 here; hidden1/bias: 4 "
        "there, 5 here; logits/kernel: 4 x 2 there, 5 x 2 here"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_weights(model, tmp_path)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_other_variables(tmp_path):
    workdir.save_model(small(hidden=(4, 4, 4)), tmp_path / "model.keras")
    message = (
        f"The weights of {tmp_path}/model.keras do not fit model 'mlp'. "
        "Differing: hidden2/kernel: 4 x 4 there, none here; hidden2/bias: 4 "
        "there, none here; hidden3/kernel: 4 x 4 there, none here and 1 more"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_weights(small(hidden=(4,)), tmp_path)


def test_states_of_rows_are_no_weights(tmp_path):
    before, now = (
        ptb_lstm(9, hidden=(4, 3), stateful=True, batch_size=rows, seed=rows)
        for rows in (2, 5)
    )
    before.save(tmp_path / "model.keras")
    load_weights(now, tmp_path)
    for name in ("embedding", "lstm2", "logits"):
        for old, new in zip(
            before.get_layer(name).trainable_variables,
            now.get_layer(name).trainable_variables,
            strict=True,
        ):
            np.testing.assert_array_equal(new.numpy(), old.numpy())
