"""The rival that is built by hand is the same network; half means half."""

import keras
import numpy as np
import pytest

import tf_ssl
from benchmarks import transformer_models
from tests.tf_ssl.hub import backbones, planted

if not backbones.has_keras_hub():
    pytest.skip("keras_hub is not installed", allow_module_level=True)


SIZES = transformer_models.Sizes(
    layers=2,
    width=32,
    heads=4,
    inner=48,
    image=32,
    patch=8,
    length=16,
    vocabulary=50,
)


def _in_order_of_hand(weights):
    """KerasHub's BERT builds both norms of a layer before its dense layers."""
    last = [w for w in weights if "feedforward_layer_norm" in w.path]
    ordered = []
    for weight in weights:
        if any(weight is norm for norm in last):
            continue
        ordered.append(weight)
        if weight.path.endswith("feedforward_output_dense/bias"):
            ordered += [last.pop(0), last.pop(0)]
    return ordered


@pytest.mark.parametrize("name", transformer_models.TRANSFORMERS)
def test_by_hand_is_the_same_network(name):
    by_hub, by_hand, draw, _ = transformer_models.TRANSFORMERS[name]
    model, rival = planted.fill(by_hub(SIZES)), by_hand(SIZES, 4, 48)
    weights = _in_order_of_hand(list(model.weights))
    assert len(rival.weights) == len(weights)
    for mine in rival.weights:
        # The first that is left of its shape: ViT's token is made elsewhere.
        shapes = [tuple(theirs.shape) for theirs in weights]
        mine.assign(weights.pop(shapes.index(tuple(mine.shape))))
    inputs = draw(SIZES, 4)
    difference = planted.difference(
        planted.outputs(model, inputs), planted.outputs(rival, inputs)
    )
    assert difference < 1e-5


def test_half_of_each_layer_is_planted():
    model = transformer_models.hand_bert(SIZES, 4, 48)
    structures = tf_ssl.find_structures(model)
    found = transformer_models.plant_half(structures, SIZES)
    assert found == {"heads": 2, "inner": 2}
    dead = {48: 24, 4: 2}
    for structure in structures:
        if structure.size in dead:
            norms = structure.norms(("out", "norm", "in"))
            assert np.sum(norms == 0) == dead[structure.size]


def test_structures_that_are_missing():
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    with pytest.raises(RuntimeError, match="Expected 2 structures of heads"):
        transformer_models.plant_half(tf_ssl.find_structures(model), SIZES)
