"""A baseline: structures zeroed at random."""

from __future__ import annotations

import numpy as np

from tf_ssl import checks


def zero_random(structures, fraction, seed=0) -> dict[str, np.ndarray]:
    """Zeroes units of each structure at random: what learning must beat.

    Inputs of the model and, by rounding, at least one unit of each structure
    stay unless `fraction` is 1.

    Args:
        structures: What `tf_ssl.find_structures(model)` returned.
        fraction: Of the units of each structure, in [0, 1], rounded to a
            number of units.
        seed: Integer >= 0. The same seed zeroes the same units of structures
            of the same sizes.

    Returns:
        Dict from the name of each structure to the units zeroed, sorted.

    Raises:
        ValueError: A fraction outside [0, 1], a seed < 0.
    """
    fraction = checks.fraction("fraction", fraction)
    generator = np.random.default_rng(checks.integer("seed", seed, 0))
    zeroed = {}
    for structure in structures:
        if structure.kind == "input":
            continue
        count = round(fraction * structure.size)
        if fraction < 1:
            count = min(count, structure.size - 1)
        units = np.sort(generator.permutation(structure.size)[:count])
        structure.zero(units)
        zeroed[structure.name] = units
    return zeroed
