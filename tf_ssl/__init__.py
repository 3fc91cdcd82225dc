"""Structured sparsity: networks that learn what they can do without."""

from tf_ssl.find_blocks import find_blocks
from tf_ssl.find_structures import find_structures
from tf_ssl.rules import structure_rule
from tf_ssl.shrink import ShrinkReport, shrink
from tf_ssl.structure import Slice, Structure, Structures

__all__ = [
    "ShrinkReport",
    "Slice",
    "Structure",
    "Structures",
    "find_blocks",
    "find_structures",
    "shrink",
    "structure_rule",
]
