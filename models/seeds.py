"""Seeds for layers and workers, drawn from the one seed of a run."""

from __future__ import annotations

import keras
import numpy as np


def layer_seeds(seed: int | None, count: int) -> list[int | None]:
    """Returns one seed per layer; layers of one model need different ones.

    Keras initializers with the same integer seed draw the same numbers, so
    two layers of one shape would begin equal.

    Args:
      seed: non-negative integer, or None for a fresh one in every layer.
      count: how many.
    """
    if seed is None:
        return [None] * count
    states = np.random.SeedSequence(seed).generate_state(count)
    return [int(state) for state in states]


def seed_generators(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of the model's random streams (dropout and so on)."""
    return [v for v in model.variables if is_seed_generator(v)]


def is_seed_generator(variable: keras.Variable) -> bool:
    """Whether the variable is the state of a `keras.random.SeedGenerator`."""
    return variable.path.split("/")[-1] == "seed_generator_state"


def seed_streams(model: keras.Model, seed: int, rank: int) -> None:
    """Gives every random stream of the model a start of its own.

    Workers must not share dropout masks, and a run must repeat. So each
    stream starts from (seed, rank, position of the stream in the model).

    Args:
      model: a built model.
      seed: seed of the run, non-negative.
      rank: which worker this is.
    """
    for position, state in enumerate(seed_generators(model)):
        sequence = np.random.SeedSequence((seed, rank, position))
        start = sequence.generate_state(1)[0]
        state.assign(np.array([start, 0], dtype=state.dtype))
