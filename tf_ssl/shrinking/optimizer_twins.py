"""Optimizers like others, for another model and not built."""

from __future__ import annotations

import fnmatch
import itertools

import keras

from tf_ssl.penalties.optimizers import strengths
from tf_ssl.penalties.optimizers.adaptive_force import AdaptiveForce
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.penalties.optimizers.keras_hooks import methods_replaced
from tf_ssl.structures.find_structures import find_structures


class OptimizerTwins:
    """Makes optimizers like others, with what they wrap.

    Args:
        small: See `optimizer_for`.
        pairs: Likewise.
        structures: Likewise.
    """

    def __init__(self, small, pairs, structures):
        self._small = small
        self._pairs = pairs
        self._structures = structures
        self._made: dict[int, keras.optimizers.Optimizer] = {}
        self._names = (f"_tf_ssl_live_{i}" for i in itertools.count())

    def of(self, optimizer):
        """The one like another."""
        if id(optimizer) not in self._made:
            new = self._make(optimizer)
            self._keep_settings(optimizer, new)
            self._made[id(optimizer)] = new
        return self._made[id(optimizer)]

    def _make(self, optimizer):
        kind = type(optimizer)
        if hasattr(optimizer, "_optimizer_map"):
            return self._multi(optimizer)
        try:
            config = {**_config(optimizer), **self._live(optimizer)}
            inner = self._inner(optimizer, config)
            # What from_config deserializes may be the name of an object.
            names = dict(zip(inner, self._names, strict=False))
            named = {names[key]: value for key, value in inner.items()}
            with keras.saving.custom_object_scope(named):
                return kind.from_config({**config, **names})
        except Exception as error:  # whatever the user's class raises
            raise ValueError(
                "Invalid value for argument optimizer. Expected one that can "
                f"be made again from its config. Received: {optimizer.name} of "
                f"class {kind.__name__}: write {kind.__name__}.get_config, "
                "which returns all arguments of __init__. "
                f"{type(error).__name__}: {error}"
            ) from error

    def _live(self, optimizer) -> dict:
        """Entries of the config that are of one model, or are functions."""
        live = {}
        if callable(vars(optimizer).get("_learning_rate")):
            live["learning_rate"] = optimizer._learning_rate
        if isinstance(optimizer, AdaptiveForce):
            live["kernels"] = self._kernels(optimizer)
        if isinstance(optimizer, GroupLassoOptimizer):
            found = self._found(optimizer)
            live["structures"] = found
            live["strength"] = _matching(optimizer.initial_strength, found)
            live["variable_paths"] = None
        return live

    def _inner(self, optimizer, config) -> dict:
        """Entry of the config -> optimizer like the wrapped one."""
        wrapped = getattr(optimizer, "inner_optimizer", None)
        if wrapped is None:
            return {}
        for key in ("inner_optimizer", "optimizer"):
            if key in config:
                return {key: self.of(wrapped)}
        raise ValueError(
            'expected "inner_optimizer" or "optimizer" in the config of what '
            f"wraps {wrapped.name}"
        )

    def _multi(self, optimizer):
        """By variable, one of several."""
        chosen = optimizer._optimizer_map
        if not hasattr(chosen, "default_optimizer"):
            raise ValueError(
                "Invalid value for argument optimizer. Expected a "
                "MultiOptimizer with a keras.optimizers.OptimizerMap, by paths "
                "of variables. Received: one with a function"
            )
        by_path = {key: self.of(chosen._optimizer_map[key]) for key in chosen}
        new = type(chosen)(self.of(chosen.default_optimizer), by_path)
        return type(optimizer)(
            new,
            loss_scale_factor=optimizer.loss_scale_factor,
            name=optimizer.name,
        )

    def _kernels(self, optimizer) -> tuple:
        """Patterns that match what is left."""
        paths = [v.path for v in self._small.trainable_variables if v.ndim >= 2]
        return tuple(
            pattern
            for pattern in optimizer.kernels
            if any(fnmatch.fnmatchcase(path, pattern) for path in paths)
        )

    def _found(self, optimizer) -> list:
        if self._structures is not None:
            return list(self._structures)
        names = {strengths.name_of(s) for s in optimizer.structures}
        return [s for s in find_structures(self._small) if s.name in names]

    def _keep_settings(self, optimizer, new):
        """What is no argument of a constructor, or in no config."""
        excluded = vars(optimizer).get("_exclude_from_weight_decay")
        if excluded is not None:
            after = {
                optimizer._var_key(old): new._var_key(successor)
                for old, successor in self._pairs
            }
            new._exclude_from_weight_decay = {
                after[key] for key in excluded if key in after
            }
            new._exclude_from_weight_decay_pattern = (
                optimizer._exclude_from_weight_decay_pattern
            )
        if getattr(optimizer, "process_set", None) is not None:
            new.process_set = optimizer.process_set
        if isinstance(optimizer, GroupLassoOptimizer):
            now = dict(
                zip(
                    map(strengths.name_of, optimizer.structures),
                    optimizer.strength.numpy(),
                    strict=True,
                )
            )
            initial = new.strength.numpy()
            new.strength = [
                now.get(s.name, number)
                for s, number in zip(new.structures, initial, strict=True)
            ]


def _config(optimizer) -> dict:
    if not callable(vars(optimizer).get("_learning_rate")):
        return dict(optimizer.get_config())
    # A schedule is taken as it is, and may have no config.
    with methods_replaced(optimizer, {"_learning_rate": 0.5}):
        return dict(optimizer.get_config())


def _matching(strength, found):
    """Less the patterns that no structure has."""
    if not isinstance(strength, dict):
        return strength
    return {
        pattern: value
        for pattern, value in strength.items()
        if any(fnmatch.fnmatchcase(s.name, pattern) for s in found)
    }
