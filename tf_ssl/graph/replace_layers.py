"""A copy of a model in which some layers are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from tf_ssl.graph.walk import functional


def replace_layers(
    model: keras.Model,
    successors: Mapping[keras.Layer, Sequence[keras.Layer]],
) -> keras.Model:
    """Copies a model; some of its layers are replaced by chains of others.

    All other layers are copied with their weights. Shared layers stay shared;
    nested models are copied likewise. The argument is not changed.

    Args:
        model: Built Functional or Sequential model.
        successors: Layer of the model, or of a model nested in it, to the
            layers that follow each other in its place; the first is called with
            all that the layer is called with. Those that have no weights yet
            are built by the call.

    Returns:
        A model, Sequential if the argument is.

    Raises:
        ValueError: The model is not built, or is a subclass with Python code;
            a layer to replace is not in it.
    """
    if functional(model) is None:
        raise ValueError(
            "Invalid value for argument model. Expected a built Functional or "
            f"Sequential model. Received: {model!r}."
        )
    chains = {id(old): list(new) for old, new in successors.items()}
    missing = {id(old): old.name for old in successors}
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def chain(op):
        """What stands in the place of a layer or operation."""
        missing.pop(id(op), None)
        if id(op) not in chains:
            if functional(op) is not None:
                chains[id(op)] = [copy(op)]
            elif isinstance(op, keras.Layer):
                new = type(op).from_config(op.get_config())
                chains[id(op)] = [new]
                pairs.append((op, new))
            else:
                chains[id(op)] = [op]
        return chains[id(op)]

    def call(last, *args, **kwargs):
        first, *others = chains[last_of[id(last)]]
        outputs = first(*args, **kwargs)
        for layer in others:
            outputs = layer(outputs)
        return outputs

    last_of: dict[int, int] = {}  # id of the last of a chain -> of what it is

    def last(op):
        new = chain(op)[-1]
        last_of[id(new)] = id(op)
        return new

    def copy(part):
        if isinstance(part, keras.Sequential):
            inputs = [
                keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
                for t in functional(part).inputs
            ]
            layers = [new for old in part.layers for new in chain(old)]
            return keras.Sequential([*inputs, *layers], name=part.name)
        return keras.models.clone_model(
            part, clone_function=last, call_function=call
        )

    new_model = copy(model)
    if missing:
        raise ValueError(
            "Invalid value for argument successors. Expected layers of the "
            f"model. Received: {', '.join(sorted(missing.values()))}"
        )
    for old, new in pairs:
        for variable, value in zip(new.variables, old.variables, strict=True):
            variable.assign(value)
    return new_model
