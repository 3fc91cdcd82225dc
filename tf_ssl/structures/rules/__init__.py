"""How each type of layer treats units: one table, open to users' layers."""

# The modules fill the table.
from tf_ssl.structures.rules import (
    attention,
    contraction,
    elementwise,
    embeddings,
    mixing,
    normalization,
    pointwise,
    sources,
)
from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.embeddings import Embedding, ReversibleEmbedding
from tf_ssl.structures.rules.kernels import grouped, linear
from tf_ssl.structures.rules.moves import moves
from tf_ssl.structures.rules.recurrent import bidirectional, time_distributed
from tf_ssl.structures.rules.recurrent.recurrent import Recurrent
from tf_ssl.structures.rules.table import (
    Unknown,
    has_rule,
    rule_of,
    structure_rule,
)
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
    "bidirectional",
    "contraction",
    "elementwise",
    "embeddings",
    "grouped",
    "has_rule",
    "linear",
    "mixing",
    "moves",
    "normalization",
    "pointwise",
    "rule_of",
    "sources",
    "structure_rule",
    "time_distributed",
]
