"""Time of a training step over workers, links and exchanges.

`python -m tf_terngrad.perf_model --help` is the program.
"""

from tf_terngrad.perf_model.model import (
    EXCHANGES,
    Channel,
    Cluster,
    Kernels,
    StepTime,
    step_time,
)
from tf_terngrad.perf_model.profiles import MODELS, NETWORKS, Model, Profile

__all__ = [
    "Channel",
    "Cluster",
    "EXCHANGES",
    "Kernels",
    "MODELS",
    "Model",
    "NETWORKS",
    "Profile",
    "StepTime",
    "step_time",
]
