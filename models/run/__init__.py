"""What a training run needs around its model."""

from models.run import flags_file, host, optimizers, workdir
from models.run.metrics_log import MetricsLog
from models.run.progress import Progress
from models.run.stop import StopAtStep
from models.run.throughput import Throughput

__all__ = [
    "MetricsLog",
    "Progress",
    "StopAtStep",
    "Throughput",
    "flags_file",
    "host",
    "optimizers",
    "workdir",
]
