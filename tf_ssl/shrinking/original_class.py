"""A smaller model as an instance of the class that the original has."""

from __future__ import annotations

import keras

from tf_ssl.graph import check
from tf_ssl.graph.sample import random_inputs


def original_class(model, small, *, sample=None, **changes) -> keras.Model:
    """A smaller model in the original's class, with other sizes in its config.

    `tf_ssl.shrink` returns plain layers in place of composite ones. Where the
    config of the original's class can say the new sizes (heads, inner units;
    the same in all blocks), its own methods, such as those that generate text,
    come back this way.

    Args:
        model: The original.
        small: What `tf_ssl.shrink(model)` returned.
        sample: Inputs to compare the two on; None: random ones.
        **changes: Entries of `model.get_config()` with the new sizes.

    Returns:
        `type(model).from_config` of the changed config, with the weights of
        `small`.

    Raises:
        ValueError: An entry is not in the config; `small` was not made from
            `model`, or from one like it; there are other variables; one has
            another shape than the smaller model's, which is named with both:
            its blocks differ, or a change is missing.
        RuntimeError: It computes something else than `small`.

    >>> class Block(keras.Model):
    ...     def __init__(self, units, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.units = units
    ...         self.inner = keras.layers.Dense(units, name="inner")
    ...         self.outer = keras.layers.Dense(2, name="outer")
    ...     def call(self, x):
    ...         return self.outer(self.inner(x))
    ...     def get_config(self):
    ...         return {**super().get_config(), "units": self.units}
    >>> model = Block(4)
    >>> outputs = model(keras.ops.ones((1, 3)))
    >>> import tf_ssl
    >>> tf_ssl.find_structures(model)["inner/units"].zero([0, 2])
    >>> again = original_class(model, tf_ssl.shrink(model), units=2)
    >>> type(again).__name__, again.units
    ('Block', 2)
    """
    variables = getattr(
        getattr(small, "shrink_report", None), "variables", None
    )
    if variables is None or len(variables) != len(model.variables):
        raise ValueError(
            "Invalid value for argument small. Expected what "
            f"tf_ssl.shrink(model) returned for {model.name}. Received: "
            f"{small!r}"
        )
    config = model.get_config()
    unknown = sorted(changes.keys() - config.keys())
    if unknown:
        raise ValueError(
            f"Invalid entries of the config of {type(model).__name__}. "
            f"Expected some of {sorted(config)}. Received: {unknown}"
        )
    new = type(model).from_config({**config, **changes})
    inputs = random_inputs(small) if sample is None else sample
    if not new.built or not new.variables:
        new(inputs)
    if len(new.variables) != len(variables):
        raise ValueError(
            f"{type(model).__name__} with {changes} has {len(new.variables)} "
            f"variables, {model.name} has {len(variables)}: changes may state "
            "other sizes, not other layers."
        )
    for old, value, target in zip(
        model.variables, variables, new.variables, strict=True
    ):
        if value is None:
            continue
        if tuple(value.shape) != tuple(target.shape):
            raise ValueError(
                f"The smaller model has the shape {tuple(value.shape)} for "
                f"{old.path}, {type(model).__name__} with {changes} has "
                f"{tuple(target.shape)}: a change is missing, or the config "
                "has one number for what differs by layer."
            )
        target.assign(value)
    check.check(small, (), new, inputs, what="rebuilt")
    return new
