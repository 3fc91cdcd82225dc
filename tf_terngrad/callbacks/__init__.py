"""Keras 3 callbacks for training over several workers."""

from tf_terngrad.callbacks.average_statistics import AverageStatistics
from tf_terngrad.callbacks.broadcast_variables import BroadcastVariables
from tf_terngrad.callbacks.exchange_metrics import ExchangeMetrics
from tf_terngrad.callbacks.gradient_diagnostics import GradientDiagnostics
from tf_terngrad.callbacks.learning_rate_warmup import LearningRateWarmup
from tf_terngrad.callbacks.metric_average import MetricAverage
from tf_terngrad.callbacks.replica_check import ReplicaCheck

__all__ = [
    "AverageStatistics",
    "BroadcastVariables",
    "ExchangeMetrics",
    "GradientDiagnostics",
    "LearningRateWarmup",
    "MetricAverage",
    "ReplicaCheck",
]
