import keras
import numpy as np

from models.mlp import mlp
from models.seeds import layer_seeds, seed_generators, seed_streams


def test_layers_get_different_seeds():
    seeds = layer_seeds(0, 50)
    assert len(set(seeds)) == 50
    assert seeds == layer_seeds(0, 50)
    assert seeds[:3] == layer_seeds(0, 3)
    assert layer_seeds(None, 2) == [None, None]


def masks(seed, rank):
    model = mlp(input_shape=(200,), hidden=(100, 100), dropout=0.5, seed=1)
    seed_streams(model, seed, rank)
    dropouts = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
    ones = np.ones((1, 64), "float32")
    return [layer(ones, training=True).numpy().tobytes() for layer in dropouts]


def test_streams_differ_by_seed_worker_and_layer_and_repeat():
    assert masks(0, 0) == masks(0, 0)
    several = [*masks(0, 0), *masks(0, 1), *masks(1, 0)]
    assert len(set(several)) == 6


def test_model_without_random_layers():
    model = mlp(hidden=(3,))
    seed_streams(model, 0, 0)
    assert seed_generators(model) == []
