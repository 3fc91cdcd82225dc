"""Keras callbacks for learning structured sparsity."""

from tf_ssl.callbacks.freeze_zeros import FreezeZeros
from tf_ssl.callbacks.group_lasso_metric import GroupLassoMetric
from tf_ssl.callbacks.magnitude import MagnitudePruning
from tf_ssl.callbacks.rank_clipping import RankClipping
from tf_ssl.callbacks.sparsity_logger import SparsityLogger
from tf_ssl.callbacks.strength_schedule import (
    StrengthController,
    StrengthSchedule,
)

__all__ = [
    "FreezeZeros",
    "GroupLassoMetric",
    "MagnitudePruning",
    "RankClipping",
    "SparsityLogger",
    "StrengthController",
    "StrengthSchedule",
]
