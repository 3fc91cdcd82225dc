"""Which rule a layer has."""

from __future__ import annotations

import keras
import numpy as np

from tf_ssl.graph.walk import Call
from tf_ssl.structures.rules.base import Rule

_RULES: dict = {}  # class, or name of a class of keras.ops -> rule


def structure_rule(*layers):
    """Decorator: the class below says how these layers treat units.

    Args:
        *layers: Layer classes; for operations of keras.ops, which are not
            public classes, their names, such as "Relu".
    """

    def register(rule):
        for layer in layers:
            _RULES[layer] = rule
        return rule

    return register


def has_rule(op) -> bool:
    """Whether a layer or operation need not be opened."""
    return _known(op) is not None or _is_keras_own(op)


def _is_operation(op) -> bool:
    return not isinstance(op, keras.Layer)


def _is_keras_own(op) -> bool:
    return type(op).__module__.startswith("keras.src")


def _known(op):
    if _is_operation(op):
        return _RULES.get(type(op).__name__)
    for layer in type(op).__mro__:
        if layer in _RULES:
            return _RULES[layer] if _computes_as(type(op), layer) else None
    return None


# What a subclass may have of its own and still compute what its parent does.
_HARMLESS = {"build", "build_from_config", "get_config", "from_config"}


def _computes_as(kind, layer) -> bool:
    """Whether a subclass replaces nothing that computes.

    Not `call` alone: standardized kernels replace `convolution_op`, other
    attention `_compute_attention`.
    """
    for other in kind.__mro__[: kind.__mro__.index(layer)]:
        for name, value in vars(other).items():
            if name.startswith("__") or name in _HARMLESS:
                continue
            computes = callable(value) or isinstance(value, property)
            if computes and hasattr(layer, name):
                return False
    return True


def rule_of(call: Call) -> Rule:
    """The rule of a call; `Unknown` where there is none."""
    reason = _refused(call.op)
    if reason is not None:
        rule = Unknown(call)
        rule.reason = reason
        return rule
    return (_known(call.op) or Unknown)(call)


def _refused(op) -> str | None:
    """Why a layer with a rule cannot be cut."""
    if not isinstance(op, keras.Layer):
        return None
    if getattr(op, "lora_enabled", False):
        return (
            f"{op.name} has LoRA factors, which are part of its kernel: shrink "
            "the model before enable_lora, or merge them first"
        )
    try:
        mode = op.quantization_mode
    except AttributeError:
        mode = None
    if mode is not None and mode != "float8":
        return (
            f"{op.name} is quantized ({mode}): shrink the model before quantize"
        )
    return None


class Unknown(Rule):
    """A layer without a rule: all its units stay."""

    reason = None

    def declare(self):
        """Fixes what comes in, and what goes out."""
        reason = self.reason
        if reason is None:
            name = type(self.op).__name__
            if _is_operation(self.op):
                reason = f"the operation {name} has no rule"
            else:
                closed = self.tracer.closed.get(self.op.name)
                why = f" and does not open: {closed}" if closed else ""
                reason = (
                    f"the layer {self.name} ({name}) has no rule{why}; ten "
                    f"lines make one: @tf_ssl.structure_rule({name}), see "
                    "docs/architecture.md"
                )
        self.refuse(reason)

    def needs(self, read, wanted, inputs, gone):
        return [
            {axis: np.ones(len(values), bool) for axis, values in one.items()}
            for one in inputs
        ]
