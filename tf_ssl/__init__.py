"""Structured sparsity: networks that learn what they can do without."""

from tf_ssl import callbacks, pictures, rules
from tf_ssl.find_blocks import find_blocks
from tf_ssl.find_structures import find_structures
from tf_ssl.group_lasso import GroupLasso
from tf_ssl.magnitude import zero_random
from tf_ssl.regularize import regularize
from tf_ssl.regularizer_sum import RegularizerSum
from tf_ssl.rules import Rule, structure_rule
from tf_ssl.shrink import ShrinkReport, shrink
from tf_ssl.sparsity import model_sparsity, sparsity
from tf_ssl.structure import Slice, Structure, Structures

__all__ = [
    "GroupLasso",
    "RegularizerSum",
    "Rule",
    "ShrinkReport",
    "Slice",
    "Structure",
    "Structures",
    "callbacks",
    "find_blocks",
    "find_structures",
    "model_sparsity",
    "pictures",
    "regularize",
    "rules",
    "shrink",
    "sparsity",
    "structure_rule",
    "zero_random",
]
