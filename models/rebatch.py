"""Models that carry their state from batch to batch, and back."""

from __future__ import annotations

import keras

from models.seeds import is_seed_generator


def rebatch(
    model: keras.Model, batch_size: int | None, stateful: bool
) -> keras.Model:
    """A copy of a recurrent model for batches of another size.

    Args:
      model: Functional model.
      batch_size: rows of a batch; None: any number.
      stateful: whether its recurrent layers begin a batch with the state in
        which they ended the one before; needs a batch size.

    Returns:
      A model with the same weights, whose states are zero.
    """
    config = model.get_config()
    for layer in config["layers"]:
        of_layer = layer["config"]
        layer.pop("build_config", None)  # it has the old batch size
        if layer["class_name"] == "InputLayer":
            of_layer["batch_shape"] = (batch_size, *of_layer["batch_shape"][1:])
        elif "stateful" in of_layer:
            of_layer["stateful"] = stateful
    copy = type(model).from_config(config)
    weights = {v.path: v for v in lasting_variables(model)}
    for variable in lasting_variables(copy):
        variable.assign(weights[variable.path])
    return copy


def recurrent_layers(model: keras.Model) -> list[keras.layers.RNN]:
    """The layers of a model that have a state."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.RNN)
    ]


def reset_states(model: keras.Model) -> None:
    """Sets the states that are carried over to zero."""
    for layer in recurrent_layers(model):
        if layer.stateful:
            layer.reset_state()


def lasting_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights and statistics: not states, nor random streams."""
    states = {
        id(state)
        for layer in recurrent_layers(model)
        for state in keras.tree.flatten(layer.states or ())
    }
    return [
        v
        for v in model.variables
        if id(v) not in states and not is_seed_generator(v)
    ]
