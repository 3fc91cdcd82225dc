"""Random inputs for a model whose sizes may be open."""

from __future__ import annotations

import keras

from tf_ssl.graph.inputs import input_structure, inputs_for, static_batch

_SIZES = (1, 2, 4, 8, 16, 32, 64, 75, 96, 128, 224)


def random_inputs(model, seed: int = 0, length: int | None = None):
    """Inputs that a model accepts; sizes left open are the smallest it takes.

    Args:
        model: Built `keras.Model`.
        seed: Of the numbers.
        length: Size of what is left open; None: see above.

    Raises:
        ValueError: No size was accepted; or see `inputs_for`.
    """
    batch_size = static_batch(model) or 2
    inputs = keras.tree.flatten(input_structure(model))
    if not any(x is not None and None in x.shape[1:] for x in inputs):
        return inputs_for(model, batch_size, seed=seed)
    for size in _SIZES if length is None else (length,):
        values = inputs_for(model, batch_size, seed=seed, unknown=size)
        try:
            model(values, training=False)
        except Exception as failure:  # what it is depends on the layers
            error = failure
            continue
        return values
    raise ValueError(
        "Invalid value for argument sample. Expected an example of the "
        f"model's input, for {model.name} took no random input of the sizes "
        f"{_SIZES}. Received: sample=None. The last error: {error}"
    )
