"""Stops all workers at the start when they do not do the same."""

import sys

import keras
import tensorflow as tf

import custom_ops
from tf_terngrad import collectives
from tf_terngrad.exchange import path

# Of an optimizer's configuration: names may be numbered, the others are
# compared on their own.
_ELSEWHERE = {
    "name",
    "inner_optimizer",
    "optimizer",
    "compression",
    "groups",
    "gradient_accumulation_steps",
}


def check_agreement(facts: dict) -> None:
    """Compares facts of all workers.

    Args:
        facts: Name -> any picklable value. The same names on all workers.

    Raises:
        RuntimeError: On every worker, naming each fact that differs, the
            workers and their values.
    """
    gathered = collectives.allgather_object(facts, name="agreement")
    problems = []
    for key in gathered[0]:
        values = [other.get(key) for other in gathered]
        differing = [r for r, v in enumerate(values) if v != values[0]]
        if differing:
            r = differing[0]
            problems.append(
                f"  {key}: {_difference(values[0], values[r])} "
                f"(worker 0, worker {r})"
            )
    if problems:
        raise RuntimeError(
            "The workers do not agree. Start all with the same program, "
            "flags and versions.\n" + "\n".join(problems)
        )


def facts_of(
    model, steps_per_epoch, optimizer=None, with_rate: bool = True
) -> dict:
    """What all workers must have in common; not seeds, not paths.

    Args:
        model: Keras model.
        steps_per_epoch: Int or None.
        optimizer: Built Keras optimizer; None: the one that the model is
            compiled with.
        with_rate: Whether learning rates that are numbers are among them;
            schedules always are.
    """
    optimizer = optimizer or model.optimizer
    compression = getattr(optimizer, "compression", None)
    return {
        "number of workers": collectives.size(),
        "Python": ".".join(str(v) for v in sys.version_info[:2]),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "byte order": sys.byteorder,
        "custom_ops": custom_ops.status()["implementation"],
        "compression": compression and compression.agreement(),
        "groups": getattr(optimizer, "groups", None),
        "optimizer": _optimizer_config(optimizer, with_rate),
        "gradient accumulation": optimizer.gradient_accumulation_steps,
        "model": model.name,
        "trainable variables": _shapes(model.trainable_variables),
        "non-trainable variables": _shapes(model.non_trainable_variables),
        "steps per epoch": steps_per_epoch,
    }


def _optimizer_config(optimizer, with_rate) -> dict:
    """Classes and settings of an optimizer and of those within it."""
    config = {"classes": []}
    while optimizer is not None:
        name = type(optimizer).__name__
        config["classes"].append(name)
        for key, value in optimizer.get_config().items():
            is_rate = key == "learning_rate" and isinstance(value, float)
            if key not in _ELSEWHERE and (with_rate or not is_rate):
                config[f"{name}.{key}"] = value
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return config


def _shapes(variables) -> list:
    return [(path(v), tuple(v.shape), str(v.dtype)) for v in variables]


def _difference(a, b) -> str:
    """`a != b`; of lists and dicts only the first entry that differs."""
    if isinstance(a, dict) and isinstance(b, dict):
        key = next(k for k in {**a, **b} if a.get(k) != b.get(k))
        return f"{key}={a.get(key)!r} != {key}={b.get(key)!r}"
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{len(a)} != {len(b)} of them"
        x, y = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        return f"{x!r} != {y!r}"
    return f"{a!r} != {b!r}"
