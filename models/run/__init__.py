"""What a training run needs around its model."""

from models.run import (
    flags_file,
    group_lasso_flag,
    host,
    optimizers,
    sparsity,
    tasks,
    train_flags,
    warmup,
    workdir,
)
from models.run.averaged_weights import AveragedWeights
from models.run.init_from import load_weights
from models.run.low_rank import LowRank
from models.run.metrics_log import MetricsLog
from models.run.progress import Progress
from models.run.smooth_out_flags import smooth_out
from models.run.sparsity import Sparsity
from models.run.stop import StopAtStep
from models.run.throughput import Throughput
from models.run.unit_counts import UnitCounts

__all__ = [
    "AveragedWeights",
    "LowRank",
    "MetricsLog",
    "Progress",
    "Sparsity",
    "StopAtStep",
    "Throughput",
    "UnitCounts",
    "flags_file",
    "group_lasso_flag",
    "host",
    "load_weights",
    "optimizers",
    "smooth_out",
    "sparsity",
    "tasks",
    "train_flags",
    "warmup",
    "workdir",
]
