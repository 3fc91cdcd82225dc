"""How each type of layer treats units: one table, open to users' layers."""

# The modules fill the table.
from tf_ssl.structures.rules import (
    attention,
    joins,
    linear,
    norms,
    pointwise,
    recurrent,
    shapes,
)
from tf_ssl.structures.rules.base import Rule, Tracer, rule_of, structure_rule

__all__ = [
    "Rule",
    "Tracer",
    "attention",
    "joins",
    "linear",
    "norms",
    "pointwise",
    "recurrent",
    "rule_of",
    "shapes",
    "structure_rule",
]
