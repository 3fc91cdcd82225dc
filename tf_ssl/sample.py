"""Random inputs for a model."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph import build_graph


def random_inputs(model, batch_size: int = 2, seed: int = 0):
    """Inputs that a model accepts, in its own structure.

    Normal numbers; integers below the size of the Embedding that reads them;
    sizes that are not known are the smallest that the model accepts.

    Args:
        model: Built Functional or Sequential model.
        batch_size: >= 1.
        seed: Of the numbers.

    Raises:
        ValueError: No size was accepted.
    """
    graph = build_graph(model)
    limits = {}
    for call in graph.calls:
        if isinstance(call.op, keras.layers.Embedding):
            for key in call.inputs:
                low = min(limits.get(key, 1 << 30), call.op.input_dim)
                limits[key] = low
    # Every change of type or shape between hides the input from the lookup.
    least = min(limits.values(), default=2)
    random = np.random.default_rng(seed)
    unknown = any(
        size is None for key in graph.inputs for size in graph.shapes[key][1:]
    )
    error = None
    for size in (1, 2, 4, 8, 16, 32, 64, 75, 96, 128, 224) if unknown else (1,):
        values = []
        for key, tensor in zip(graph.inputs, _inputs(model), strict=True):
            shape = [size if n is None else n for n in graph.shapes[key][1:]]
            shape = [batch_size, *shape]
            if "int" in keras.backend.standardize_dtype(tensor.dtype):
                high = limits.get(key, least)
                values.append(random.integers(0, high, shape, dtype=np.int32))
            else:
                values.append(random.standard_normal(shape).astype(np.float32))
        values = keras.tree.pack_sequence_as(model.input, values)
        try:
            model(values, training=False)
        except Exception as failure:  # noqa: BLE001  what fails depends on layers
            error = failure
            continue
        return values
    raise ValueError(
        "Expected argument sample: the model accepts no random input of the "
        f"sizes tried. The last error: {error}"
    )


def _inputs(model):
    return keras.tree.flatten(model.input)
