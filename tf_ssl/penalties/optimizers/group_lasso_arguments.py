"""Checks of the arguments of GroupLassoOptimizer."""

from __future__ import annotations

import dataclasses
import warnings

import keras

from tf_ssl import checks
from tf_ssl.penalties.optimizers import inner_metric, keras_hooks, strengths
from tf_ssl.penalties.optimizers.optimizer_wrapper import innermost
from tf_ssl.penalties.papers import Subgradient
from tf_ssl.structures.structure import ROLES, Structure

_CHOICES = {
    "update": ("subgradient", "proximal"),
    "scale": ("none", "sqrt", "inv_sqrt"),
    "metric": ("inner", "euclidean"),
    "overlap": (None, "dykstra"),
}
_CONFIG_KEYS = {"name", "size", "kind", "roles", "slices"}


def options(update, keywords) -> tuple[str, Subgradient]:
    """The update, and the papers' options, of what the optimizer was given.

    Args:
        update: "subgradient", "proximal" or a `Subgradient`.
        keywords: Of `Subgradient`.
    """
    known = {field.name for field in dataclasses.fields(Subgradient)}
    if isinstance(update, Subgradient):
        known = set()
    for name in keywords:
        if name not in known:
            raise TypeError(
                "GroupLassoOptimizer got an unexpected keyword argument "
                f"{name!r}"
                + (f" beside update={update!r}" if not known else "")
            )
    if isinstance(update, Subgradient):
        return "subgradient", update
    return update, Subgradient(**keywords)


def check(optimizer, structures, strength, papers, roles, **others):
    """Raises for what GroupLassoOptimizer does not take.

    Args:
        optimizer: See there.
        structures: See there; configurations are taken too.
        strength: See there.
        papers: `Subgradient`.
        roles: See there.
        **others: Its other arguments, all but `name`.
    """
    keras_hooks.check()
    _check_optimizer(optimizer)
    _check_structures(structures)
    strengths.check(strength)
    for argument, choices in _CHOICES.items():
        checks.choice(argument, others[argument], choices)
    if roles is not None and (
        isinstance(roles, str)
        or not roles
        or any(role not in ROLES[:3] for role in roles)
    ):
        raise ValueError(
            "Invalid value for argument roles. Expected None or some of "
            f"{ROLES[:3]}. Received: roles={roles!r}"
        )
    if others["update"] == "proximal":
        _check_proximal(optimizer, others["metric"], papers)
    elif others["overlap"] is not None:
        raise ValueError(
            "Invalid value for argument overlap. Expected None with "
            "update='subgradient', to which overlaps are no matter. Received: "
            f"overlap={others['overlap']!r}"
        )
    if papers.threshold_all:
        warnings.warn(
            "threshold_all=True: biases, shifts and all other weights that "
            "begin at 0 stay there until one step moves them by more than "
            f"{papers.threshold}. It is meant for repeating results of the "
            "papers.",
            stacklevel=3,
        )


def _check_optimizer(optimizer):
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Invalid type for argument optimizer. Expected a Keras 3 "
            "optimizer (an instance of keras.optimizers.Optimizer). "
            f"Received: optimizer={optimizer!r}"
        )
    core = innermost(optimizer)
    if type(core).apply is not keras.optimizers.Optimizer.apply:
        raise TypeError(
            "Invalid type for argument optimizer. Expected an optimizer that "
            "updates through keras.optimizers.Optimizer.apply, where the group "
            f"Lasso acts. Received: {type(core).__name__}, which has an apply "
            "of its own"
        )


def _check_structures(structures):
    is_list = isinstance(structures, list | tuple) and len(structures) > 0
    if not is_list or not all(_is_structure(s) for s in structures):
        raise TypeError(
            "Invalid type for argument structures. Expected a list of one "
            "tf_ssl.Structure or more, as find_structures(model) returns. "
            f"Received: structures={structures!r}"
        )


def _is_structure(value) -> bool:
    if isinstance(value, dict):
        return _CONFIG_KEYS <= set(value)
    return isinstance(value, Structure)


def _check_proximal(optimizer, metric, papers):
    core = innermost(optimizer)
    if metric == "inner" and inner_metric.kind(core) is None:
        supported = ", ".join(c.__name__ for c in inner_metric.SUPPORTED)
        raise TypeError(
            "Invalid type for argument optimizer. Expected one of "
            f"{{{supported}}} with update='proximal', whose metrics are known. "
            f"Received: {type(core).__name__}. Use one of these, "
            "metric='euclidean' or update='subgradient'."
        )
    for field in dataclasses.fields(papers):
        value = getattr(papers, field.name)
        # A threshold does nothing here, and is in older calls.
        if field.name != "threshold" and value != field.default:
            raise ValueError(
                f"Invalid value for argument {field.name}. Expected "
                f"{field.default!r} with update='proximal', which has exact "
                "zeros without a threshold, counts each weight once and adds "
                f"nothing to gradients. Received: {field.name}={value!r}. Pass "
                "update='subgradient' with it."
            )
