"""How each type of layer treats units: one table, open to users' layers."""

# The modules fill the table.
from tf_ssl.structures.rules import (
    attention,
    contraction,
    elementwise,
    linear,
    mixing,
    moves,
    recurrent,
    sources,
)
from tf_ssl.structures.rules.base import (
    Rule,
    Unknown,
    has_rule,
    rule_of,
    structure_rule,
)
from tf_ssl.structures.rules.linear import Embedding, ReversibleEmbedding
from tf_ssl.structures.rules.recurrent import Recurrent
from tf_ssl.structures.rules.tracer import Tracer
from tf_ssl.structures.units import Space

__all__ = [
    "Embedding",
    "Recurrent",
    "ReversibleEmbedding",
    "Rule",
    "Space",
    "Tracer",
    "Unknown",
    "attention",
    "contraction",
    "elementwise",
    "has_rule",
    "linear",
    "mixing",
    "moves",
    "recurrent",
    "rule_of",
    "sources",
    "structure_rule",
]
