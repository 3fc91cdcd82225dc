"""Structured sparsity: networks that learn what they can do without."""

from tf_ssl import callbacks
from tf_ssl.exporting import runtimes
from tf_ssl.exporting.export import check_export, export
from tf_ssl.graph.difference import relative_difference
from tf_ssl.low_rank.decompose import decompose, kernel_ranks
from tf_ssl.low_rank.decompose_report import DecomposeReport
from tf_ssl.measure import pictures
from tf_ssl.measure.compare import compare
from tf_ssl.measure.comparison import Comparison
from tf_ssl.measure.latency import (
    Latency,
    in_turn,
    inference,
    measure_latency,
)
from tf_ssl.measure.machine import machine
from tf_ssl.measure.multiply_add_table import multiply_add_rule
from tf_ssl.measure.multiply_adds import MultiplyAdds, multiply_adds
from tf_ssl.measure.shrink_figure import shrink_figure
from tf_ssl.measure.sparsity import model_sparsity, sparsity
from tf_ssl.penalties import papers
from tf_ssl.penalties.force_regularizer import ForceRegularizer
from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.penalties.optimizers.adaptive_force import AdaptiveForce
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
)
from tf_ssl.penalties.regularize import regularize
from tf_ssl.penalties.regularizer_sum import RegularizerSum
from tf_ssl.shrinking.original_class import original_class
from tf_ssl.shrinking.report import ShrinkReport
from tf_ssl.shrinking.shrink import shrink
from tf_ssl.sparse import layers, storage
from tf_ssl.sparse.sparse_plans import PruningGain, pruning_gains
from tf_ssl.sparse.sparsify import sparsify
from tf_ssl.sparse.sparsify_report import SparsifyReport
from tf_ssl.structures import rules
from tf_ssl.structures.find_blocks import find_blocks
from tf_ssl.structures.find_structures import find_structures
from tf_ssl.structures.kernel_structures import kernel_structures
from tf_ssl.structures.kernels import Kernel, find_kernels
from tf_ssl.structures.rules import Rule, structure_rule
from tf_ssl.structures.structure import Slice, Structure, Structures
from tf_ssl.structures.zero_random import zero_random

__all__ = [
    "AdaptiveForce",
    "Comparison",
    "DecomposeReport",
    "ForceRegularizer",
    "GroupLasso",
    "GroupLassoOptimizer",
    "Kernel",
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
    "find_kernels",
    "find_structures",
    "in_turn",
    "inference",
    "kernel_ranks",
    "kernel_structures",
    "layers",
    "machine",
    "measure_latency",
    "model_sparsity",
    "multiply_add_rule",
    "multiply_adds",
    "original_class",
    "papers",
    "pictures",
    "pruning_gains",
    "regularize",
    "relative_difference",
    "rules",
    "runtimes",
    "shrink",
    "shrink_figure",
    "sparsify",
    "sparsity",
    "storage",
    "structure_rule",
    "zero_random",
]
