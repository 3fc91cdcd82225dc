"""What of Keras' optimizers is private and yet needed; all of it is here.

| name | why |
|---|---|
| `_backend_update_step` | only it knows that a step really updates, after accumulation and unscaling, and with which learning rate |
| `_backend_apply_gradients` | gradients before they are clipped (`clip="inside"`) |
| `_overwrite_model_variables_with_average_value` | averages (EMA) replace weights |
| `_get_variable_index`, `_trainable_variables`, `_trainable_variables_indices`, `_var_key`, `_variables` | a wrapper whose `build` must not make averages and accumulators of its own |
| `SLOTS` | moments: the metric of the step |

Tried with the versions of Keras in `TRIED`.
"""  # noqa: E501

from __future__ import annotations

import contextlib

import keras

TRIED = ("3.12.4", "3.15.1")
METHODS = (
    "_backend_apply_gradients",
    "_backend_update_step",
    "_get_variable_index",
    "_overwrite_model_variables_with_average_value",
    "_var_key",
)
# Our name -> attribute of the optimizers that have it.
SLOTS = {
    "momentum": ("momentums", "_momentums"),
    "second moment": ("_velocities",),
    "largest second moment": ("_velocity_hats",),
    "mean gradient": ("_average_gradients",),
    "sum of squares": ("_accumulators",),
    "largest gradient": ("_u",),
}


def check() -> None:
    """Raises RuntimeError if this Keras lacks what is needed."""
    missing = [
        name
        for name in METHODS
        if not callable(getattr(keras.optimizers.Optimizer, name, None))
    ]
    if missing:
        raise RuntimeError(
            f"Keras {keras.__version__} has no Optimizer."
            f"{', Optimizer.'.join(missing)}. Expected one of the versions "
            f"that tf_ssl was tried with: {', '.join(TRIED)}."
        )


def slot(optimizer, name: str, variable):
    """What an optimizer keeps for a variable.

    Args:
        optimizer: Built Keras optimizer.
        name: One of `SLOTS`.
        variable: One that it trains.
    """
    for attribute in SLOTS[name]:
        slots = getattr(optimizer, attribute, None)
        if slots is not None:
            # By position, as update_step's own look-up is.
            return slots[optimizer._get_variable_index(variable)]
    raise RuntimeError(
        f"{type(optimizer).__name__} of Keras {keras.__version__} has no "
        f"{' or '.join(SLOTS[name])}. Expected one of the versions that tf_ssl "
        f"was tried with: {', '.join(TRIED)}."
    )


def register(optimizer, variables) -> None:
    """Tells a wrapper its variables, without the rest of Keras' `build`."""
    for i, variable in enumerate(variables):
        key = optimizer._var_key(variable)
        optimizer._trainable_variables_indices[key] = i
    optimizer._trainable_variables.extend(variables)


def trained(optimizer) -> list:
    """The variables that it was built with."""
    return optimizer._trainable_variables


def trains(optimizer, variable) -> bool:
    """Whether it was built with a variable."""
    key = optimizer._var_key(variable)
    return key in optimizer._trainable_variables_indices


def position(optimizer, variable) -> int:
    """Position of a variable among those it was built with."""
    return optimizer._get_variable_index(variable)


def own_variables(optimizer) -> list:
    """Variables of the optimizer itself, not of one inside."""
    return optimizer._variables


def around_update(optimizer, update, averages, gradients=None):
    """Within the block, functions stand around steps of an optimizer.

    Args:
        optimizer: The innermost one.
        update: Function of Keras' own update step, which it calls, and the
            arguments of that: gradients, variables, learning rate.
        averages: Function of Keras' own that overwrites weights by their
            averages, which it calls, and the variables.
        gradients: Function of gradients and variables, which gives those that
            are clipped; None: they stay as they are.
    """
    own_apply = optimizer._backend_apply_gradients
    own_update = optimizer._backend_update_step
    own_overwrite = optimizer._overwrite_model_variables_with_average_value
    methods = {
        "_backend_update_step": lambda *args: update(own_update, *args),
        "_overwrite_model_variables_with_average_value": (
            lambda variables: averages(own_overwrite, variables)
        ),
    }
    if gradients is not None:
        methods["_backend_apply_gradients"] = lambda grads, variables: (
            own_apply(gradients(grads, variables), variables)
        )
    return methods_replaced(optimizer, methods)


@contextlib.contextmanager
def methods_replaced(instance, methods):
    """Methods of one object are others within the block.

    Args:
        instance: Any object.
        methods: Dict from names to functions, called without the object.
    """
    attributes = instance.__dict__
    before = {k: attributes[k] for k in methods if k in attributes}
    attributes.update(methods)
    try:
        yield
    finally:
        for name in methods:
            del attributes[name]
        attributes.update(before)
