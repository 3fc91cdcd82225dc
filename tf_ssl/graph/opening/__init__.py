"""Composite layers and subclassed models, called on symbolic tensors."""

from tf_ssl.graph.opening.batch import Batch
from tf_ssl.graph.opening.composites import (
    nodes_forgotten,
    open_layer,
    open_model,
)
from tf_ssl.graph.opening.nodes import runs_its_graph
from tf_ssl.graph.opening.opener import Opened
from tf_ssl.graph.opening.reasons import CannotOpen

__all__ = [
    "Batch",
    "CannotOpen",
    "Opened",
    "nodes_forgotten",
    "open_layer",
    "open_model",
    "runs_its_graph",
]
