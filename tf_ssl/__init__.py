"""Structured sparsity: networks that learn what they can do without."""

from tf_ssl import callbacks, layers, pictures, rules, storage
from tf_ssl.adaptive_force import AdaptiveForce
from tf_ssl.compare import compare
from tf_ssl.comparison import Comparison
from tf_ssl.decompose import decompose, kernel_ranks
from tf_ssl.decompose_report import DecomposeReport
from tf_ssl.export import check_export, export
from tf_ssl.find_blocks import find_blocks
from tf_ssl.find_structures import find_structures
from tf_ssl.force_regularizer import ForceRegularizer
from tf_ssl.group_lasso import GroupLasso
from tf_ssl.group_lasso_optimizer import GroupLassoOptimizer
from tf_ssl.kernel_structures import kernel_structures
from tf_ssl.latency import Latency, measure_latency
from tf_ssl.machine import machine
from tf_ssl.magnitude import zero_random
from tf_ssl.multiply_add_table import multiply_add_rule
from tf_ssl.multiply_adds import MultiplyAdds, multiply_adds
from tf_ssl.regularize import regularize
from tf_ssl.regularizer_sum import RegularizerSum
from tf_ssl.rules import Rule, structure_rule
from tf_ssl.shrink import ShrinkReport, shrink
from tf_ssl.shrink_figure import shrink_figure
from tf_ssl.sparse_plans import PruningGain, pruning_gains
from tf_ssl.sparsify import sparsify
from tf_ssl.sparsify_report import SparsifyReport
from tf_ssl.sparsity import model_sparsity, sparsity
from tf_ssl.structure import Slice, Structure, Structures

__all__ = [
    "AdaptiveForce",
    "Comparison",
    "DecomposeReport",
    "ForceRegularizer",
    "GroupLasso",
    "GroupLassoOptimizer",
    "Latency",
    "MultiplyAdds",
    "PruningGain",
    "RegularizerSum",
    "Rule",
    "ShrinkReport",
    "Slice",
    "SparsifyReport",
    "Structure",
    "Structures",
    "callbacks",
    "check_export",
    "compare",
    "decompose",
    "export",
    "find_blocks",
    "find_structures",
    "kernel_ranks",
    "kernel_structures",
    "layers",
    "machine",
    "measure_latency",
    "model_sparsity",
    "multiply_add_rule",
    "multiply_adds",
    "pictures",
    "pruning_gains",
    "regularize",
    "rules",
    "shrink",
    "shrink_figure",
    "sparsify",
    "sparsity",
    "storage",
    "structure_rule",
    "zero_random",
]
